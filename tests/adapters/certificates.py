"""Certificates for servers in tests, made by openssl(1): NAME.pem and NAME.key in a folder."""

import subprocess
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def authority(home: Path, name: str) -> None:
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
    _openssl(home, "req", "-x509", *KEY, *files, "-days", "30", "-subj", f"/CN={name} of the tests")


def sign(home: Path, name: str, by: str, extension: str, *, days: int = 30) -> None:
    """`by` is an authority in the same folder; negative days: it has expired."""
    (home / f"{name}.ext").write_text(extension + "\n")
    request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    _openssl(home, "req", *KEY, *request)
    signer = ("-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial")
    files = ("-in", f"{name}.csr", "-extfile", f"{name}.ext", "-out", f"{name}.pem")
    _openssl(home, "x509", "-req", *files, *signer, "-days", str(days))


def _openssl(home: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=home, check=True, capture_output=True, timeout=20)
