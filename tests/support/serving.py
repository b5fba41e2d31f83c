"""A real worker under a real supervisor, for tests: started, ready, and gone afterwards."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import trio

from inferd_daemon.backends.base import (
    Backend,
    Finished,
    GenerateRequest,
    Sampling,
    TextDeltas,
    ThinkingDeltas,
    ToolCall,
)
from inferd_daemon.backends.libllama import LibllamaBackend
from inferd_daemon.config import LibllamaConfig
from inferd_daemon.engines.http_probe import fetch
from inferd_daemon.engines.libllama.engine import LibllamaEngine
from inferd_daemon.supervision.processes.logs import RuntimeLog
from inferd_daemon.supervision.runtimes.backoff import RestartPolicy
from inferd_daemon.supervision.runtimes.supervisor import Supervisor
from inferd_proto import Message, Text

DEADLINE_S = 60.0


class Serving(NamedTuple):
    """What a test looks at."""

    backend: LibllamaBackend
    supervisor: Supervisor
    directory: Path

    @property
    def pid(self) -> int:
        """Of the worker that runs now."""
        assert self.supervisor.process is not None
        return self.supervisor.process.pid

    async def slots(self) -> list[dict[str, Any]]:
        """llama.cpp's own view of its slots."""
        _, body = await fetch(self.supervisor.endpoint, "/slots")
        slots: list[dict[str, Any]] = msgspec.json.decode(body)
        return slots

    async def busy_slots(self) -> int:
        """How many work on a request."""
        return sum(slot["is_processing"] for slot in await self.slots())


class Answer(NamedTuple):
    """One generation, gathered."""

    text: str
    thinking: str
    calls: list[ToolCall]
    finished: Finished


@asynccontextmanager
async def serving(
    directory: Path,
    model: Path | str,
    *,
    wait: bool = True,
    patience_s: float = DEADLINE_S,
    policy: RestartPolicy | None = None,
    on_change: Callable[[], None] = lambda: None,
    **options: Any,  # noqa: ANN401 (fields of LibllamaConfig)
) -> AsyncIterator[Serving]:
    """Serve `model`; with `wait`, from when it is ready or has failed.

    `on_change` is told of each change of its state.
    """
    config = LibllamaConfig(model=str(model), **{"threads": 1, **options})
    engine = LibllamaEngine("tiny", config, directory / "runtime")
    log = RuntimeLog(directory / "logs" / "tiny.log")
    supervisor = Supervisor(engine, log, policy=policy, on_change=on_change)
    backend = LibllamaBackend("tiny", config, supervisor, patience_s=patience_s)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.start()
        if wait:
            with trio.fail_after(DEADLINE_S):
                await supervisor.wait_settled()
        nursery.start_soon(backend.run)
        yield Serving(backend, supervisor, directory)
        await backend.close()
        nursery.cancel_scope.cancel()


def ask(text: str = "Well?", *, max_tokens: int | None = None, **fields: Any) -> GenerateRequest:  # noqa: ANN401
    """A request with one message."""
    sampling = Sampling(max_tokens=max_tokens, temperature=0.0)
    return GenerateRequest([Message("user", [Text(text)])], sampling, **fields)


async def answer(backend: Backend, request: GenerateRequest) -> Answer:
    """The whole answer; checks that `Finished` comes once and last."""
    text: list[str] = []
    thinking: list[str] = []
    calls: list[ToolCall] = []
    finished: Finished | None = None
    with trio.fail_after(DEADLINE_S):
        async with aclosing(backend.generate(request)) as batches:
            async for batch in batches:
                for event in batch:
                    assert finished is None
                    match event:
                        case TextDeltas(deltas):
                            text += deltas
                        case ThinkingDeltas(deltas):
                            thinking += deltas
                        case ToolCall():
                            calls.append(event)
                        case Finished():
                            finished = event
    assert finished is not None
    return Answer("".join(text), "".join(thinking), calls, finished)
