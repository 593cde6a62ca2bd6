"""Certificates for tests of TLS, made by the program openssl."""

import shutil
import subprocess
from pathlib import Path

import pytest

SECONDS = 30.0
_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


def make_certificates(directory: Path) -> Path:
    """Put `ca.pem`, and `server` and `client` .pem and .key that it has signed, into the directory, which is returned.

    They are for 127.0.0.1. Skips the test where there is no openssl.
    """
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=SECONDS)

    openssl("req", "-x509", *_NEW, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    (directory / "extensions").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", *_NEW[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return directory
