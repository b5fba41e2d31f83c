"""Headers of requests and heads of responses, as a client of a chat server sees them."""

from collections.abc import Callable, Mapping

import httpx

from ..errors import UpstreamFault


def stream_of(response: httpx.Response) -> httpx.AsyncByteStream:
    """The body as it comes; the response's own iterators cost more than the parsing does."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream


def header_lines(
    base_url: httpx.URL, api_key: str | None, headers: Mapping[str, str]
) -> list[tuple[bytes, bytes]]:
    """What goes with every request; the operator's `headers` win."""
    lines = {
        "host": base_url.netloc.decode(),
        "accept": "text/event-stream, application/json",
        # What is compressed cannot be handed on as it comes.
        "accept-encoding": "identity",
        "content-type": "application/json",
    }
    if api_key:
        lines["authorization"] = f"Bearer {api_key}"
    lines |= {name.lower(): value for name, value in headers.items()}
    return [(name.encode("ascii"), value.encode()) for name, value in lines.items()]


def content_type(response: httpx.Response) -> str:
    """Without parameters, in lower case; "" where there is none."""
    return _header(response, b"content-type").partition(";")[0].strip().lower()


def retry_after(response: httpx.Response) -> str:
    """As it came; "" where there is none."""
    return _header(response, b"retry-after").strip()


def _header(response: httpx.Response, name: bytes) -> str:
    """The first of that name, "" where there is none: httpx's own look-up costs more than all."""
    for key, value in response.headers.raw:
        if key.lower() == name:
            return value.decode("latin-1")
    return ""


def may_be_events(response: httpx.Response) -> bool:
    """Whether the body can be a stream of events.

    Servers that forget the type of their stream are let pass; a page or an object is none.
    """
    if is_encoded(response):
        return False
    return content_type(response) not in ("text/html", "application/json")


def is_encoded(response: httpx.Response) -> bool:
    """Whether the body is compressed, though none was asked for."""
    return _header(response, b"content-encoding").lower() not in ("", "identity")


def refuse_encoded(response: httpx.Response, redact: Callable[[str], str]) -> None:
    """Raises UpstreamFault for a body that is compressed; `redact` takes secrets out of it."""
    if is_encoded(response):
        encoding = redact(_header(response, b"content-encoding"))
        raise UpstreamFault(
            f"upstream answered {response.status_code} with content-encoding {encoding[:20]!r}, "
            "though none was asked for"
        )


def certificate_refusal(error: BaseException) -> str:
    """Why the upstream's certificate was refused; "" where that is not what `error` comes from."""
    cause: BaseException | None = error
    while cause is not None:
        # by its mark, not by its class: ssl is long to load, and seldom needed
        why = getattr(cause, "verify_message", None)
        if isinstance(why, str):
            return why.rstrip(".")
        cause = cause.__cause__ or cause.__context__
    return ""
