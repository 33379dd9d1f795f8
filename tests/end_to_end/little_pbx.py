"""little_pbx.py ADDRESS PORT: answers every SIP OPTIONS with 200 (RFC 3261, section 11.2).

For tests in which the PBX itself does not matter: it starts in some hundredths of a second.
"""

import socket
import sys

COPIED = (b"via", b"from", b"to", b"call-id", b"cseq")  # RFC 3261, section 8.2.6.2.


def main() -> None:
    address, port = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, int(port)))
        while True:
            request, caller = sock.recvfrom(65536)
            lines = request.split(b"\r\n")
            kept = [each for each in lines if each.partition(b":")[0].strip().lower() in COPIED]
            reply = [b"SIP/2.0 200 OK", *kept, b"Content-Length: 0", b"", b""]
            sock.sendto(b"\r\n".join(reply), caller)


if __name__ == "__main__":
    main()
