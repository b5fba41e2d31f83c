"""Why an engine process ended: exit status and last log lines, turned into one typed reason.

llama.cpp exits with 1 for every mistake, so the text decides. Pure: reads no file, waits for
nothing. The texts are those of llama.cpp b11434 and its neighbours.
"""

import re
import signal
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

MAX_REASON_CHARS = 400
"""A reason goes into error frames and `status`; a line of an engine's log can be any length."""


class Cause(Enum):
    """What kind of end it was; the operator's next step depends on it."""

    MODEL_MISSING = "model_missing"
    MODEL_CORRUPT = "model_corrupt"
    MODEL_UNSUPPORTED = "model_unsupported"
    PROJECTOR_UNUSABLE = "projector_unusable"
    ADAPTER_UNUSABLE = "adapter_unusable"
    ADDRESS_UNUSABLE = "address_unusable"
    BAD_OPTION = "bad_option"
    OUT_OF_MEMORY = "out_of_memory"
    NO_PROCESS = "no_process"
    NOT_STARTED = "not_started"
    NOT_READY = "not_ready"
    HUNG = "hung"
    CRASHED = "crashed"
    KILLED = "killed"
    EXITED = "exited"
    SERVICE_UNAVAILABLE = "service_unavailable"
    SERVICE_LACKS_MODEL = "service_lacks_model"
    AGENT_UNUSABLE = "agent_unusable"


PASSING = frozenset(
    {
        Cause.ADDRESS_UNUSABLE,
        Cause.NO_PROCESS,
        Cause.HUNG,
        Cause.CRASHED,
        Cause.KILLED,
        Cause.EXITED,
        # What others run they may start, mend or fill at any time.
        Cause.SERVICE_UNAVAILABLE,
        Cause.SERVICE_LACKS_MODEL,
        # Someone may install it, or log in, at any time.
        Cause.AGENT_UNUSABLE,
    }
)
"""Causes that another start may not meet again; the others need a human first."""


class Failure(NamedTuple):
    """One end of a process. `reason` is one sentence that quotes the engine's own words."""

    cause: Cause
    reason: str

    @property
    def passing(self) -> bool:
        """Whether starting again can help."""
        return self.cause in PASSING


class _Sign(NamedTuple):
    pattern: re.Pattern[str]
    cause: Cause
    meaning: str


def _sign(pattern: str, cause: Cause, meaning: str) -> _Sign:
    return _Sign(re.compile(pattern), cause, meaning)


SIGNS = (
    # What names the cause comes before the consequences that llama.cpp logs after it.
    _sign(r"invalid argument: ", Cause.BAD_OPTION, "the engine does not know an option"),
    _sign(
        r"error while handling (argument|environment variable)|expected value for argument",
        Cause.BAD_OPTION,
        "an option has a value that the engine refuses",
    ),
    _sign(
        r"couldn't bind HTTP server socket|Address already in use|path exceeds",
        Cause.ADDRESS_UNUSABLE,
        "the engine cannot listen on its address",
    ),
    _sign(
        r"insufficient memory|failed to allocate|unable to allocate|out of memory|"
        r"std::bad_alloc|cudaMalloc failed|ErrorOutOfDeviceMemory|MemoryError",
        Cause.OUT_OF_MEMORY,
        "not enough memory (try a smaller ctx_size, fewer parallel slots or a smaller model)",
    ),
    _sign(
        r"failed to load (multimodal|mmproj)|mtmd_init_from_file|clip_(model_load|init)",
        Cause.PROJECTOR_UNUSABLE,
        "the projector (mmproj) does not load",
    ),
    _sign(r"failed to load lora adapter", Cause.ADAPTER_UNUSABLE, "the LoRA adapter does not load"),
    _sign(
        r"failed to open GGUF file|No such file or directory|Permission denied",
        Cause.MODEL_MISSING,
        "the model file cannot be opened",
    ),
    _sign(
        r"this GGUF file is version|unknown model architecture|unknown (pre-)?tokenizer",
        Cause.MODEL_UNSUPPORTED,
        "this llama.cpp is too old or too new for the model",
    ),
    _sign(
        r"corrupted or incomplete|failed to read (magic|key-value|tensor)|invalid magic|"
        r"number of (key value pairs|tensors) is|not within the file bounds|"
        r"key not found in model|missing tensor|wrong number of tensors|wrong shape|"
        r"error loading model",
        Cause.MODEL_CORRUPT,
        "the model file is corrupt or incomplete (fetch it again)",
    ),
    _sign(r"GGML_ASSERT\(|GGML_ABORT", Cause.CRASHED, "the engine hit an assertion"),
)

_STAMP = re.compile(r"^\d+\.\d+\.\d+\.\d+ [A-Z] ")
NOT_EXECUTABLE = 127
"""What the exec stub exits with when it cannot run the engine."""
PARENT_GONE = 126
"""What the exec stub exits with when the daemon died before it."""


def classify(returncode: int, lines: Sequence[str]) -> Failure:
    """The failure behind an exit. `returncode` as in subprocess: negative for a signal.

    `lines` are the last of the process's own log, oldest first.
    """
    words = [_STAMP.sub("", line).strip() for line in lines]
    ended = describe_exit(returncode)
    if returncode in (NOT_EXECUTABLE, PARENT_GONE):
        return failure(Cause.NOT_STARTED, f"the engine did not start: {_last(words)}")
    # A crash after a load error in the same run still is that load error, but a kill is not.
    if returncode != -signal.SIGKILL:
        for sign in SIGNS:
            line = next((line for line in words if sign.pattern.search(line)), None)
            if line is not None:
                return failure(sign.cause, f"{sign.meaning}: {line}")
    if returncode == -signal.SIGKILL:
        return failure(
            Cause.KILLED, f"the engine was killed by {ended} (out of memory, or by hand)"
        )
    if returncode < 0:
        return failure(Cause.CRASHED, f"the engine crashed: {ended}")
    last = _last(words)
    return failure(Cause.EXITED, f"the engine ended with {ended}" + (f": {last}" if last else ""))


def failure(cause: Cause, reason: str) -> Failure:
    """A failure with its reason cut to `MAX_REASON_CHARS`."""
    if len(reason) > MAX_REASON_CHARS:
        reason = reason[: MAX_REASON_CHARS - 1] + "…"
    return Failure(cause, reason)


def describe_exit(returncode: int) -> str:
    """`returncode` in words: "exit code 1", "SIGSEGV"."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


def _last(words: Sequence[str]) -> str:
    return next((line for line in reversed(words) if line), "")
