"""Engine `libllama`: llama.cpp in a worker process of ours, by the xllamacpp wheel.

The worker listens on a Unix socket in a private directory and asks for a random key, which travels
over the control socketpair: neither argv nor the environment holds it. No TCP port is opened.
"""

import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import trio

from ...backends.runtime import Endpoint, ModelFacts
from ...config import LibllamaConfig
from ...errors import OperatorError
from ...models.demo import demo_model_path
from ..base import Belongings, Engine, EngineFailure, Health, Launch, Timing
from ..failures import Cause, Failure, classify, failure
from ..http_probe import ProbeError, fetch, look
from ..model_facts import UNREADABLE, parse_props
from ..runtime_socket import RuntimeSocket
from ..secret import Secret
from .control import (
    RECEIVE_BYTES,
    Boot,
    Control,
    ControlStream,
    Failed,
    Loaded,
    RemoteProtocolError,
)

WORKER = "inferd_daemon.engines.libllama.worker"
MAX_SOCKET_PATH_BYTES = 107
"""The kernel's limit for the path of a Unix socket."""
_NOT_FOR_ENGINES = ("LLAMA_", "INFERD_", "HF_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_")
_SECRETS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
GPU_LAYERS = {"auto": -1, "all": -2}
"""llama.cpp's numbers for them."""


class LibllamaEngine(Engine):
    """One model in one worker. `directory` is the runtime's own and becomes 0700; `key` is that of
    a former run, to be kept.

    Raises OperatorError for a configuration that cannot work.
    """

    def __init__(
        self, name: str, config: LibllamaConfig, directory: Path, *, key: Secret | None = None
    ) -> None:
        self.name = name
        self.timing = Timing(
            ready_timeout_s=config.ready_timeout_s,
            health_interval_s=config.health_interval_s,
            stop_timeout_s=config.stop_timeout_s,
        )
        self._own = self.socket = RuntimeSocket(directory)
        path = self._own.path
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise OperatorError(
                f"the path {path} is too long for a Unix socket "
                f"({MAX_SOCKET_PATH_BYTES} bytes at most): choose a shorter runtime directory"
            )
        self._boot = _boot(config, path, key)
        self.endpoint = Endpoint(uds=path, key=self._boot.key)
        self._control: socket.socket | None = None
        self._childs_end: socket.socket | None = None
        self._stream = ControlStream()
        self._loaded: Loaded | None = None

    def prepare(self) -> Launch:
        """A private directory, no socket file in it, and a fresh socketpair."""
        self.discard()
        try:
            self._own.make_directory()
            self._control, self._childs_end = socket.socketpair()
        except OSError as error:
            raise EngineFailure(
                failure(Cause.NO_PROCESS, f"cannot prepare {self._own.directory}: {error.strerror}")
            ) from error
        self._control.setblocking(False)
        self._stream = ControlStream()
        descriptor = self._childs_end.fileno()
        return Launch(
            argv=[sys.executable, "-P", "-m", WORKER, str(descriptor)],
            environment=engine_environment(os.environ),
            pass_fds=(descriptor,),
        )

    def spawned(self) -> None:
        """Send the boot message; it fits into the socket's buffer."""
        if self._childs_end is not None:
            self._childs_end.close()
            self._childs_end = None
        if self._control is not None:
            # A worker that died before it read has its reason in its log.
            with contextlib.suppress(OSError):
                self._control.send(ControlStream.pack(self._boot))

    async def look(self) -> Health:
        """`GET /health` on the worker's socket."""
        return await look(self.endpoint)

    async def learn(self) -> ModelFacts:
        """What the worker says of the device, and llama.cpp of the model."""
        if self._loaded is None:
            self._loaded = await self._await_loaded()
        loaded = self._loaded
        try:
            self._own.set_mode()
            _, body = await fetch(self.endpoint, "/props")
            facts = parse_props(body)
        except (OSError, ProbeError, *UNREADABLE) as error:
            raise EngineFailure(
                failure(Cause.EXITED, f"the engine does not describe its model: {error}")
            ) from error
        layers = self._boot.gpu_layers
        return msgspec.structs.replace(
            facts,
            accelerator=loaded.accelerator,
            gpu_layers=0 if loaded.accelerator == "cpu" else layers if layers >= 0 else None,
        )

    def discard(self) -> None:
        """Close the control channel, which ends a worker that still runs; unlink its socket."""
        for end in (self._control, self._childs_end):
            if end is not None:
                end.close()
        self._control = self._childs_end = self._loaded = None
        self._own.remove()

    def belongings(self) -> Belongings:
        """The control channel, what the worker has said over it, whom its socket was opened to."""
        descriptor = None if self._control is None else self._control.fileno()
        loaded = None if self._loaded is None else msgspec.to_builtins(self._loaded)
        return Belongings(descriptor, {"loaded": loaded, "group": self._own.group})

    def take_over(self, belongings: Belongings) -> None:
        """The worker lives as long as the channel is open."""
        if belongings.descriptor is not None:
            self._control = socket.socket(fileno=belongings.descriptor)
            self._control.setblocking(False)
        loaded, group = belongings.values.get("loaded"), belongings.values.get("group")
        self._loaded = None if loaded is None else msgspec.convert(loaded, Loaded)
        self._own.group = group if isinstance(group, int) else None

    def let_go(self) -> None:
        """Leave the channel open."""
        if self._control is not None:
            self._control.detach()
            self._control = None

    def explain(self, returncode: int, lines: Sequence[str]) -> Failure:
        """llama.cpp's words from the log, else the worker's."""
        explained = classify(returncode, lines)
        if explained.cause is Cause.EXITED and (told := self._told()):
            return failure(Cause.NOT_STARTED, told)
        return explained

    async def _await_loaded(self) -> Loaded:
        assert self._control is not None  # between spawned() and discard()
        # A duplicate: closing trio's socket must not close ours.
        with trio.socket.from_stdlib_socket(self._control.dup()) as control:
            while True:
                while (message := self._next_message()) is not None:
                    if isinstance(message, Loaded):
                        return message
                    if isinstance(message, Failed):
                        raise EngineFailure(failure(Cause.NOT_STARTED, message.reason))
                data = await control.recv(RECEIVE_BYTES)
                if not data:
                    raise EngineFailure(failure(Cause.EXITED, "the worker ended while it started"))
                self._stream.feed(data)

    def _next_message(self) -> Control | None:
        try:
            return self._stream.next()
        except RemoteProtocolError as error:
            raise EngineFailure(
                failure(Cause.EXITED, f"the worker speaks nonsense: {error}")
            ) from error

    def _told(self) -> str | None:
        """The reason of a `Failed` that lies unread in the channel."""
        if self._control is None:
            return None
        with contextlib.suppress(OSError):
            while data := self._control.recv(RECEIVE_BYTES):
                self._stream.feed(data)
        with contextlib.suppress(EngineFailure):
            while (message := self._next_message()) is not None:
                if isinstance(message, Failed):
                    return message.reason
        return None


def engine_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment less what configures llama.cpp unasked, what the service manager
    meant for the daemon alone, and keys of other services.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(_NOT_FOR_ENGINES) and not name.endswith(_SECRETS)
    }
    # An abort would otherwise attach a debugger to itself first, for half a second.
    return kept | {"GGML_NO_BACKTRACE": "1"}


def _boot(config: LibllamaConfig, socket_path: Path, key: Secret | None) -> Boot:
    model = demo_model_path() if config.model == "demo" else Path(config.model).absolute()
    layers = config.gpu_layers
    return Boot(
        model=str(model),
        mmproj=None if config.mmproj is None else str(Path(config.mmproj).absolute()),
        alias=config.alias or ("demo" if config.model == "demo" else model.stem),
        socket_path=str(socket_path),
        key=secrets.token_urlsafe(32) if key is None else key.reveal(),
        ctx_size=config.ctx_size,
        parallel=config.parallel,
        gpu_layers=layers if isinstance(layers, int) else GPU_LAYERS[layers],
        threads=config.threads or 0,
        threads_batch=config.threads_batch or 0,
        embeddings=config.embeddings,
        reranking=config.reranking,
        pooling=config.pooling,
    )
