"""A TLS certificate that only its own authority trusts, made by the openssl command."""

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Certificate(NamedTuple):
    """Files in PEM; the certificate is its own authority."""

    made: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        """A context for who presents it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.made, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        """A context for who trusts it, and nobody else."""
        return ssl.create_default_context(cafile=self.made)


def make_certificate(directory: Path, names: str = "IP:127.0.0.1,DNS:localhost") -> Certificate:
    """For `names`, in openssl's words; skips the test where there is no openssl command."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    made, key = directory / "cert.pem", directory / "key.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    command += f" -addext subjectAltName={names} -out {made} -keyout {key}"
    subprocess.run([openssl, *command.split()], check=True, capture_output=True, timeout=60)
    return Certificate(made, key)
