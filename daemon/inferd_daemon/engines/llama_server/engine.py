"""Engine `llama_server`: llama.cpp's own server by a boot spec (leases.md section 3).

Its address and key stay the same over restarts. What can be told before a start is told before:
missing files, a port in use. The key travels by environment or key file, never by argv.
"""

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
import trio

from ...backends.runtime import Endpoint, ModelFacts
from ..base import Belongings, Engine, EngineFailure, Health, Launch, Timing
from ..failures import Cause, failure
from ..http_probe import ProbeError, fetch, look
from ..key_file import KeyFileError, read_key_file
from ..model_facts import UNREADABLE, parse_props
from ..runtime_socket import RuntimeSocket
from ..secret import Secret
from .address import socket_endpoint, tcp_endpoint
from .binary import find_command
from .boot_spec import BootSpec, BootSpecError
from .flags import render_argv, render_environment
from .slots import SlotError, list_slots

KEY_BYTES = 32
REST_POLL_S = 0.003


class LlamaServerEngine(Engine):
    """One llama-server to be.

    `directory` is the runtime's own and becomes 0700; its socket is placed there. `key` and
    `port` are those of a former run, to be kept; without them a key is made and, where the spec
    says port 0, a free port is found. Saved slots go to `slot_directory`. `environment` is
    the daemon's own. Raises BootSpecError for a key file or socket path that cannot serve.
    """

    def __init__(
        self,
        name: str,
        spec: BootSpec,
        directory: Path,
        *,
        environment: Mapping[str, str],
        key: Secret | None = None,
        port: int | None = None,
        slot_directory: Path | None = None,
    ) -> None:
        self.name = name
        self.spec = spec
        self.timing = Timing(
            ready_timeout_s=spec.ready_timeout_ms / 1000,
            readiness_interval_s=spec.readiness_interval_ms / 1000,
            health_interval_s=spec.health_interval_ms / 1000,
            stop_timeout_s=spec.stop_timeout_ms / 1000,
        )
        self._own = own = RuntimeSocket(directory)
        self._environment = environment
        self._slot_directory = slot_directory
        self._key = _choose_key(spec, key)
        # A port that was found is free to be another one until somebody was told of it.
        self._port_is_open = spec.port == 0 and port is None
        if spec.port is None:
            try:
                self.endpoint = socket_endpoint(spec, own.path, self._key)
            except ValueError as error:
                raise BootSpecError([("port", f"must be given here: {error}")]) from error
            self.socket = own
        else:
            self.endpoint = tcp_endpoint(spec, port or spec.port, self._key)

    def prepare(self) -> Launch:
        """Check the files, find the program, clear the address."""
        self.discard()
        command = find_command(self.spec, self._environment)
        _check_file(self.spec.model, "model", Cause.MODEL_MISSING)
        if self.spec.mmproj is not None:
            _check_file(self.spec.mmproj, "mmproj", Cause.PROJECTOR_UNUSABLE)
        try:
            self._own.make_directory()
        except OSError as error:
            raise EngineFailure(
                failure(Cause.NO_PROCESS, f"cannot prepare {self._own.directory}: {error.strerror}")
            ) from error
        if self.endpoint.uds is None:
            self.endpoint = self._claim_port()
        return Launch(
            argv=render_argv(
                self.spec,
                command,
                self.endpoint,
                # With a comma it would be taken for several.
                served_name=self.name.replace(",", "_"),
                slot_save_path=self._make_slot_directory(),
            ),
            environment=render_environment(self.spec, self._environment, self._key, {}),
            directory=self._own.directory,
        )

    async def look(self) -> Health:
        """`GET /health`, or `/v1/models` where there is none."""
        return await look(self.endpoint)

    async def learn(self) -> ModelFacts:
        """What `/props` says of the model; the address is final from here on."""
        self._port_is_open = False
        try:
            if self.socket is not None:
                self.socket.set_mode()
            _, body = await fetch(self.endpoint, "/props")
            facts = parse_props(body)
        except (OSError, ProbeError, *UNREADABLE) as error:
            raise EngineFailure(
                failure(Cause.EXITED, f"the engine does not describe its model: {error}")
            ) from error
        layers = self.spec.gpu_layers
        return msgspec.structs.replace(
            facts,
            model=self.spec.model_identity,
            gpu_layers=layers if isinstance(layers, int) else None,
        )

    async def rest(self) -> None:
        """Interrupted while it works on one, it can hang in its clean-up."""
        with contextlib.suppress(SlotError):
            # It tells nobody when a slot gets free.
            while any(one.is_processing for one in await list_slots(self.endpoint)):  # noqa: ASYNC110
                await trio.sleep(REST_POLL_S)

    def discard(self) -> None:
        """Unlink the socket."""
        if self.socket is not None:
            self.socket.remove()

    def forget_address(self) -> None:
        """A port that was found may be somebody else's by the next start."""
        self._port_is_open = self.spec.port == 0

    def belongings(self) -> Belongings:
        """Whom its socket was opened to."""
        group = self._own.group
        return Belongings(values={} if group is None else {"group": group})

    def take_over(self, belongings: Belongings) -> None:
        """The address is final."""
        self._port_is_open = False
        group = belongings.values.get("group")
        self._own.group = group if isinstance(group, int) else None

    def _make_slot_directory(self) -> Path | None:
        """None where it cannot be made: a server that forgets is better than none."""
        if self._slot_directory is not None:
            try:
                self._slot_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError:
                return None
        return self._slot_directory

    def _claim_port(self) -> Endpoint:
        endpoint = self.endpoint
        wanted = 0 if self._port_is_open else endpoint.port or 0
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # As the server does: a port in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((endpoint.host, wanted))
                port = int(probe.getsockname()[1])
        except OSError as error:
            raise EngineFailure(
                failure(
                    Cause.ADDRESS_UNUSABLE,
                    f"`port`: cannot listen on {endpoint.host}:{wanted} ({error.strerror})",
                )
            ) from error
        return tcp_endpoint(self.spec, port, self._key)


def _choose_key(spec: BootSpec, former: Secret | None) -> Secret:
    if spec.api_key is not None:
        return spec.api_key
    if spec.api_key_file is not None:
        try:
            return read_key_file(Path(spec.api_key_file))
        except KeyFileError as error:
            raise BootSpecError([("api_key_file", str(error))]) from error
    return former or Secret(secrets.token_urlsafe(KEY_BYTES))


def _check_file(name: str, field: str, cause: Cause) -> None:
    try:
        status = os.stat(name)
    except OSError as error:
        raise EngineFailure(failure(cause, f"`{field}`: {name}: {error.strerror}")) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise EngineFailure(failure(cause, f"`{field}`: {name} is {kind}"))
    if not os.access(name, os.R_OK):
        raise EngineFailure(
            failure(cause, f"`{field}`: {name} cannot be read by the daemon's user")
        )
