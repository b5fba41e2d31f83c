"""A service that someone else runs: where it is, and how it is asked (leases.md section 4).

Only ever asks: it starts, stops and loads nothing. What the answers mean is for the kinds of
services to say.
"""

import ssl
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec

from ...backends.runtime import Endpoint, ModelFacts
from ...backends.thread import in_thread
from ..base import EngineFailure, Health, Service, Timing
from ..failures import Cause, failure
from ..http_probe import ProbeError, exchange
from ..key_file import KeyFileError, read_key_file
from ..secret import Secret
from .spec import AttachSpec

READINESS_INTERVAL_S = 0.1


class Sight(NamedTuple):
    """One look at a service, and in `words` what is wrong with it.

    `settled`: waiting will not change it, for someone has to do something first.
    """

    health: Health
    words: str = ""
    settled: bool = False
    cause: Cause = Cause.SERVICE_UNAVAILABLE

    @property
    def ready(self) -> bool:
        """Whether it serves the model, be it cold."""
        return self.health in (Health.HEALTHY, Health.DEGRADED)


class Attachable(Service):
    """What is not started but found ready. Call `open` first; `sight` is the last look."""

    sight: Sight | None = None

    @abstractmethod
    async def open(self) -> None:
        """Make ready to look. Raises EngineFailure."""

    @abstractmethod
    async def observe(self) -> Sight:
        """See how it is; the caller sets the deadline."""

    async def look(self) -> Health:
        """One look, kept as `sight`."""
        self.sight = sight = await self.observe()
        return sight.health


class AttachedService(Attachable):
    """One service to attach to. `environment` is the daemon's own, for keys that are named in it.

    `facts` is what was learned by looking.
    """

    backend: ClassVar[str]
    health_path: ClassVar[str]

    def __init__(self, name: str, spec: AttachSpec, *, environment: Mapping[str, str]) -> None:
        self.name = name
        self.spec = spec
        self.timing = Timing(
            ready_timeout_s=spec.ready_timeout_ms / 1000,
            readiness_interval_s=READINESS_INTERVAL_S,
            health_interval_s=spec.health_interval_ms / 1000,
            stop_timeout_s=0.0,
        )
        self.facts: ModelFacts | None = None
        self._environment = environment
        self._tls: ssl.SSLContext | None = None
        self.endpoint = self._endpoint(spec.request_headers())

    async def open(self) -> None:
        """Read the key that the spec refers to, anew each time. Raises EngineFailure."""
        self.facts = None
        self.endpoint = self._endpoint(self.spec.request_headers(await self._read_key()))
        if self.endpoint.tls and self._tls is None:
            try:
                self._tls = await in_thread(ssl.create_default_context, None)
            except OSError as error:
                raise EngineFailure(
                    failure(Cause.SERVICE_UNAVAILABLE, f"no TLS: {error.strerror}")
                ) from error

    async def learn(self) -> ModelFacts:
        """What the looks have found."""
        return self.facts or ModelFacts(capabilities={})

    async def ask(self, path: str, body: object = None) -> tuple[int, bytes]:
        """GET, or POST of a JSON body, below the root: status and body. Raises ProbeError."""
        headers = {**self.endpoint.headers, "Connection": "close"}
        content = None
        if body is not None:
            content = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        method = "GET" if body is None else "POST"
        url = f"{self.spec.root_url}{path}"
        try:
            request = httpx.Request(method, url, headers=headers, content=content)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ProbeError(f"{path}: {error}") from error
        return await exchange(self._transport(), request)

    def refused(self, status: int) -> Sight | None:
        """The sight where the service does not accept the key or headers; else None."""
        if status not in (401, 403):
            return None
        words = f"{self.spec.root_url} refuses the key or headers ({status}); correct the spec"
        return Sight(Health.NO_ANSWER, words, settled=True)

    def _transport(self) -> "httpx.AsyncBaseTransport":
        from ...backends.transport import PlainTransport

        if self._tls is None:
            return PlainTransport()
        return httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False)

    async def _read_key(self) -> Secret | None:
        name = self.spec.api_key_env
        if name is not None:
            value = self._environment.get(name, "")
            if not (value and value.isascii() and value.isprintable()):
                raise EngineFailure(
                    failure(
                        Cause.SERVICE_UNAVAILABLE,
                        f"`api_key_env`: the daemon's environment has no usable {name}",
                    )
                )
            return Secret(value)
        if self.spec.api_key_file is None:
            return None
        try:
            return await in_thread(read_key_file, None, Path(self.spec.api_key_file))
        except (KeyFileError, OSError) as error:
            raise EngineFailure(
                failure(Cause.SERVICE_UNAVAILABLE, f"`api_key_file`: {error}")
            ) from error

    def _endpoint(self, headers: dict[str, str]) -> Endpoint:
        url = urlsplit(self.spec.root_url)
        return Endpoint(
            host=url.hostname or "",
            port=url.port,
            api_prefix=url.path,
            tls=url.scheme == "https",
            # A bearer, too, stands among the headers and not as the key: the journal keeps that.
            headers={
                "Authorization" if name == "authorization" else name: value
                for name, value in headers.items()
            },
            health_path=self.health_path,
        )
