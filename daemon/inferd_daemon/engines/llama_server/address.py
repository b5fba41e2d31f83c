"""Where a runtime answers, and the URLs and headers that follow from it, derived once.

Pure: binds nothing. A key is in the headers alone.
"""

from pathlib import Path

from ...backends.runtime import Endpoint
from ..secret import Secret
from .boot_spec import BootSpec

MAX_SOCKET_PATH_BYTES = 107
"""The kernel's limit for a Unix socket's path; the server also wants it to end in `.sock`."""


def socket_endpoint(spec: BootSpec, path: Path, key: Secret | None) -> Endpoint:
    """The endpoint of a runtime that listens on `path`. Raises ValueError for an unfit path."""
    length = len(str(path).encode())
    if length > MAX_SOCKET_PATH_BYTES or path.suffix != ".sock":
        raise ValueError(
            f"the socket path {str(path)!r} has {length} bytes; a runtime's must end in .sock and "
            f"have at most {MAX_SOCKET_PATH_BYTES}: use a shorter runtime directory"
        )
    return Endpoint(uds=path, api_prefix=spec.api_prefix, key=_text(key))


def tcp_endpoint(spec: BootSpec, port: int, key: Secret | None) -> Endpoint:
    """The endpoint of a runtime on `port` of the spec's host."""
    host = spec.host or "127.0.0.1"
    return Endpoint(host=host, port=port, api_prefix=spec.api_prefix, key=_text(key))


def root_url(endpoint: Endpoint) -> str:
    """Scheme, host and API prefix; over a Unix socket the host is `localhost`."""
    if endpoint.uds is not None:
        return f"http://localhost{endpoint.api_prefix}"
    scheme = "https" if endpoint.tls else "http"
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    port = "" if endpoint.port is None else f":{endpoint.port}"
    return f"{scheme}://{host}{port}{endpoint.api_prefix}"


def base_url(endpoint: Endpoint) -> str:
    """Requests go to this and `/chat/completions`."""
    return f"{root_url(endpoint)}/v1"


def health_url(endpoint: Endpoint) -> str:
    """Answers 200 once the runtime serves; a llama-server without a key, too."""
    return f"{root_url(endpoint)}{endpoint.health_path}"


def headers(endpoint: Endpoint) -> dict[str, str]:
    """What a request to the runtime must bear."""
    bearer = {} if endpoint.key is None else {"Authorization": f"Bearer {endpoint.key}"}
    return endpoint.headers | bearer


def _text(key: Secret | None) -> str | None:
    return None if key is None else key.reveal()
