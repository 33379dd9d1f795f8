#!/usr/bin/env python3
"""What the phones say: a tone of 440 Hz, ten seconds of it, 8 kHz.  tone.py FILE"""

import math
import struct
import sys
import wave

with wave.open(sys.argv[1], "wb") as out:
    out.setnchannels(1)
    out.setsampwidth(2)
    out.setframerate(8000)
    tone = (int(8000 * math.sin(2 * math.pi * 440 * i / 8000)) for i in range(80_000))
    out.writeframes(b"".join(struct.pack("<h", value) for value in tone))
