"""The certificate that the HTTP front shows to other machines."""

import ssl

from ...config import HttpConfig
from ...errors import OperatorError


# The name is not looked up at once: ssl is long to load, and seldom needed.
def server_context(config: HttpConfig) -> "ssl.SSLContext | None":
    """None where the front speaks no TLS. Raises OperatorError where it cannot."""
    if config.tls_cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tls_cert_file, config.tls_key_file, _no_password)
    except ssl.SSLError as error:
        why = error.reason or "they do not read"
        raise OperatorError(
            f"http.tls_cert_file: {why}: PEM files of a certificate and its key are needed"
        ) from None
    except OSError as error:
        raise OperatorError(f"http.tls_cert_file: cannot be read: {error.strerror}") from None
    return context


def _no_password() -> str:
    raise OperatorError("http.tls_key_file: the key has a password; the daemon knows none")
