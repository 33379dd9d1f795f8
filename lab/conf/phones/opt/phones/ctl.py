#!/usr/bin/env python3
"""One command to a baresip over ctrl_tcp: ctl.py PHONE COMMAND [PARAMS] [SECONDS]; prints what comes in SECONDS.

e.g. ctl.py 6001 dial 600 5; ctl.py 6001 reginfo; ctl.py 6001 hangup
"""

import json
import socket
import sys
import time

phone, command = sys.argv[1:3]
params = sys.argv[3] if len(sys.argv) > 3 else ""
seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 0.5
s = socket.create_connection(("127.0.0.1", 4441 + int(phone) - 6001))
body = json.dumps({"command": command, "params": params, "token": "t"}).encode()
s.sendall(b"%d:%s," % (len(body), body))
end, buf = time.time() + seconds, b""
while time.time() < end:
    s.settimeout(max(0.01, end - time.time()))
    try:
        d = s.recv(65536)
    except TimeoutError:
        break
    if not d:
        break
    buf += d
    while b":" in buf:
        n, rest = buf.split(b":", 1)
        if len(rest) <= int(n):
            break
        m, buf = json.loads(rest[: int(n)]), rest[int(n) + 1 :]
        if m.get("event"):
            print(
                "%.2f" % (seconds - (end - time.time())),
                m.get("type"),
                m.get("accountaor", ""),
                m.get("peeruri", ""),
                m.get("param", ""),
            )
        else:
            print("reply", m.get("ok"), str(m.get("data", "")).strip())
