"""The client library of inferd: ask the daemon on this machine for tokens, vectors and rankings.

`Client` is asynchronous (trio or asyncio); `inferd_client.blocking.Client` has the same verbs for
plain threads. One client is one connection; any number of tasks or threads may share it.

    >>> from inferd_client.blocking import Client
    >>> with Client() as client:
    ...     print(client.generate("Say hello.").text())
    Hello from inferd.

Names are loaded when they are first used, so that importing the package costs next to nothing.
It never imports the daemon.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferd_proto import (
        AgentStatus,
        Audio,
        Block,
        CompatibilityResult,
        Constraints,
        ConsumerManifest,
        Embeddings,
        EndpointDescriptor,
        EnsurePlan,
        ErrorCode,
        Image,
        Lease,
        LeaseContext,
        LeaseEnsured,
        Message,
        Queued,
        RankedDocument,
        Ranking,
        ResponseFormat,
        Runtime,
        RuntimeState,
        Text,
        TextDelta,
        TextMessage,
        ThinkingDelta,
        Tool,
        ToolResult,
        ToolUse,
        Usage,
    )

    from .answers import Completion, Done, Event
    from .client import AnswerStream, Client, Generation, HeldLease, ItemStream, RecordStream
    from .content import PcmAudio, Prompt, RgbImage, Turn, assistant, system, tool_result, user
    from .errors import (
        AnswerTimeout,
        BackendFailed,
        ClientClosed,
        Conflict,
        ConnectError,
        ConnectionLost,
        DaemonBusy,
        DaemonFault,
        DaemonNotRunning,
        Incompatible,
        InferdError,
        LeaseLost,
        NoRoom,
        NotFound,
        OperationTimeout,
        PermissionDenied,
        ProtocolViolation,
        RequestFailed,
        RequestRefused,
        StreamOverflow,
    )
    from .metrics import MetricFamily, MetricHistogram, MetricSample
    from .runtimes import Change, LogLine, RouteChange
    from .status import BackendStatus, NotReady, RouteStatus, Status

_HOMES = {
    "answers": "Completion Done Event",
    "client": "AnswerStream Client Generation HeldLease ItemStream RecordStream",
    "content": "PcmAudio Prompt RgbImage Turn assistant system tool_result user",
    "errors": "AnswerTimeout BackendFailed ClientClosed Conflict ConnectError ConnectionLost"
    " DaemonBusy DaemonFault DaemonNotRunning Incompatible InferdError LeaseLost NoRoom NotFound"
    " OperationTimeout PermissionDenied ProtocolViolation RequestFailed RequestRefused"
    " StreamOverflow",
    "metrics": "MetricFamily MetricHistogram MetricSample",
    "runtimes": "Change LogLine RouteChange",
    "status": "BackendStatus NotReady RouteStatus Status",
    "inferd_proto": "AgentStatus Audio Block CompatibilityResult Constraints ConsumerManifest"
    " Embeddings EndpointDescriptor EnsurePlan ErrorCode Image Lease LeaseContext LeaseEnsured"
    " Message Queued RankedDocument Ranking ResponseFormat Runtime RuntimeState"
    " Text TextDelta TextMessage ThinkingDelta Tool ToolResult ToolUse Usage",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AgentStatus",
    "AnswerStream",
    "AnswerTimeout",
    "Audio",
    "BackendFailed",
    "BackendStatus",
    "Block",
    "Change",
    "Client",
    "ClientClosed",
    "CompatibilityResult",
    "Completion",
    "Conflict",
    "ConnectError",
    "ConnectionLost",
    "Constraints",
    "ConsumerManifest",
    "DaemonBusy",
    "DaemonFault",
    "DaemonNotRunning",
    "Done",
    "Embeddings",
    "EndpointDescriptor",
    "EnsurePlan",
    "ErrorCode",
    "Event",
    "Generation",
    "HeldLease",
    "Image",
    "Incompatible",
    "InferdError",
    "ItemStream",
    "Lease",
    "LeaseContext",
    "LeaseEnsured",
    "LeaseLost",
    "LogLine",
    "Message",
    "MetricFamily",
    "MetricHistogram",
    "MetricSample",
    "NoRoom",
    "NotFound",
    "NotReady",
    "OperationTimeout",
    "PcmAudio",
    "PermissionDenied",
    "Prompt",
    "ProtocolViolation",
    "Queued",
    "RankedDocument",
    "Ranking",
    "RecordStream",
    "RequestFailed",
    "RequestRefused",
    "ResponseFormat",
    "RgbImage",
    "RouteChange",
    "RouteStatus",
    "Runtime",
    "RuntimeState",
    "Status",
    "StreamOverflow",
    "Text",
    "TextDelta",
    "TextMessage",
    "ThinkingDelta",
    "Tool",
    "ToolResult",
    "ToolUse",
    "Turn",
    "Usage",
    "assistant",
    "system",
    "tool_result",
    "user",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home on first use."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(home if home == "inferd_proto" else f"{__name__}.{home}")
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
