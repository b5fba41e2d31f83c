"""CONTROL.md is true: it has every operation, its tables are the code's, its examples messages."""

import json
import os
import re
from importlib.resources import files
from typing import Any, get_args

import msgspec
import pytest
from msgspec import Struct, inspect
from msgspec.structs import fields

import inferd_proto
from inferd_client.metrics import to_metrics
from inferd_client.runtimes import to_change, to_log_line
from inferd_client.status import Status, to_routes, to_status
from inferd_daemon.backends.mock import MockBackend
from inferd_daemon.config import MockConfig
from inferd_daemon.config.boot_fields import BootFields
from inferd_daemon.control.call import Call, Peer
from inferd_daemon.control.logs import _Logs
from inferd_daemon.control.verbs import STREAMS, VERBS
from inferd_daemon.engines.agents.spec import _Fields as AgentFields
from inferd_daemon.engines.attached.spec import _Fields as AttachFields
from inferd_daemon.engines.failures import Cause
from inferd_daemon.errors import RequestError
from inferd_proto import (
    AgentStatus,
    AnswerReceived,
    ClientConnection,
    CompatibilityResult,
    ConsumerManifest,
    Control,
    EndpointDescriptor,
    EnsurePlan,
    Error,
    ErrorCode,
    FrameType,
    Item,
    Lease,
    LeaseEnsure,
    LeaseEnsured,
    LeaseGet,
    LeaseList,
    LeaseRelease,
    LeaseRenew,
    Result,
    Runtime,
    RuntimeRef,
    StreamDone,
    pack,
)
from inferd_proto.leases import (
    MAX_CONTEXT_BYTES,
    MAX_OWNER_CHARS,
)
from inferd_proto.messages import decode_request
from inferd_proto.messages.control import Cancel
from inferd_proto.messages.limits import MAX_JSON_BYTES, MAX_JSON_DEPTH
from tests.daemon.fronts.conversation import view_of
from tests.proto.control_document import (
    DOCUMENT,
    Exchange,
    Json,
    Row,
    asked_fields,
    conversation,
    operations,
    rights,
    told_fields,
)

ARGUMENTS: dict[str, type[Struct]] = {
    "lease.ensure": LeaseEnsure,
    "lease.renew": LeaseRenew,
    "lease.get": LeaseGet,
    "lease.list": LeaseList,
    "lease.release": LeaseRelease,
    "runtime.restart": RuntimeRef,
    "logs": _Logs,
}
PARTS: dict[str, type[Struct]] = {
    "field of the consumer": ConsumerManifest,
    "field of a boot spec": BootFields,
    "field of an attach spec": AttachFields,
    "field of an agent spec": AgentFields,
}
RECORDS: dict[str, type[Struct]] = {
    "field of a lease": Lease,
    "field of the compatibility": CompatibilityResult,
    "field of a plan": EnsurePlan,
    "field of an endpoint": EndpointDescriptor,
    "field of an agent": AgentStatus,
    "field of a runtime": Runtime,
}


# -- every operation -----------------------------------------------------------------------


def test_every_operation_has_a_heading_and_no_other() -> None:
    assert sorted(operations()) == sorted([*VERBS, *STREAMS])


def test_every_operation_is_in_the_list_and_in_the_conversation() -> None:
    assert sorted(rights()) == sorted([*VERBS, *STREAMS])
    asked = {exchange.request["op"] for exchange in conversation()}
    assert asked == {"cancel", *VERBS, *STREAMS}


@pytest.mark.parametrize("op", VERBS)
async def test_only_what_is_an_administrators_is_denied_to_others(op: str) -> None:
    uid = os.geteuid() + 4711
    arguments: Json = {"instance_key": "x", "lease_ref": "x", "ttl_ms": 1000, "target": "x"}
    call = Call(view_of(MockBackend("m", MockConfig())), Peer(1, uid, uid), 1, arguments)
    denied = False
    try:
        await VERBS[op](call)
    except* RequestError as group:
        denied = all(_code(error) is ErrorCode.PERMISSION_DENIED for error in group.exceptions)
    assert denied == (rights()[op] == "administrators")


def _code(error: BaseException) -> ErrorCode:
    assert isinstance(error, RequestError)
    return error.code


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^##+ (.+)$", DOCUMENT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", DOCUMENT)) <= anchors
    for name in re.findall(r"\]\(([^)#]+)\)", DOCUMENT):
        assert files(inferd_proto).joinpath(name).is_file()


# -- the tables ----------------------------------------------------------------------------


TABLES = [(operations()[op], "field", kind) for op, kind in ARGUMENTS.items()] + [
    (DOCUMENT, first, kind) for first, kind in PARTS.items()
]


@pytest.mark.parametrize(("text", "first", "kind"), TABLES, ids=[*ARGUMENTS, *PARTS])
def test_what_may_be_given_is_what_the_code_takes(
    text: str, first: str, kind: type[Struct]
) -> None:
    rows = asked_fields(text, first)
    assert sorted(rows) == sorted(field.name for field in fields(kind))
    for field in fields(kind):
        row = rows[field.name]
        assert (row.default is None) == field.required, field.name
        if row.default is not None:
            default = (
                field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            )
            assert _means(json.loads(row.default), default), field.name
        assert _takes_null(row.type) == (type(None) in get_args(field.type)), field.name
        _check_bounds(row, kind)


def _means(told: object, default: object) -> bool:
    if isinstance(default, Struct):
        return bool(msgspec.convert(told, type(default)) == default)
    return bool(told == msgspec.to_builtins(default))


def _takes_null(words: str) -> bool:
    return re.search(r"\bnull\b", words) is not None


def _check_bounds(row: Row, kind: type[Struct]) -> None:
    shape = inspect.type_info(kind)
    assert isinstance(shape, inspect.StructType)
    (field,) = (field for field in shape.fields if field.name == row.name)
    kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    numbers = re.findall(r"\d+", row.meaning)
    for one in kinds:
        if isinstance(one, inspect.IntType):
            for bound in (one.ge, one.le):
                assert bound is None or str(bound) in numbers, row.name


@pytest.mark.parametrize("first", RECORDS)
def test_what_is_answered_is_what_the_code_gives(first: str) -> None:
    kind = RECORDS[first]
    assert {name: _takes_null(words) for name, words in told_fields(first).items()} == {
        field.name: type(None) in get_args(field.type) for field in fields(kind)
    }


def test_limits_are_those_of_the_code() -> None:
    rows = asked_fields(operations()["lease.ensure"])
    assert f"at most {MAX_OWNER_CHARS} characters" in rows["owner_ref"].meaning
    assert f"at most {MAX_CONTEXT_BYTES} bytes" in rows["context"].meaning
    assert f"at most {MAX_JSON_BYTES} bytes and {MAX_JSON_DEPTH} levels" in DOCUMENT


def test_codes_and_causes_are_those_of_the_code() -> None:
    codes = re.findall(r"^\| `(\w+)` \|", DOCUMENT.split("## 10. Errors")[1], re.MULTILINE)
    assert set(codes) <= {code.value for code in ErrorCode}
    assert len(codes) == len(set(codes)) == 9
    causes = DOCUMENT.split("Causes:\n")[1].split(".\n")[0]
    assert re.findall(r"`(\w+)`", causes) == [cause.value for cause in Cause]


# -- the conversation ----------------------------------------------------------------------


READERS: dict[str, Any] = {
    "lease.renew": Lease,
    "lease.get": Lease,
    "lease.list": dict[str, list[Lease]],
    "lease.release": LeaseRelease,
    "runtime.list": dict[str, list[Runtime]],
    "runtime.get": Runtime,
    "runtime.restart": Runtime,
    "runtime.stop": Runtime,
    "agent.list": dict[str, list[AgentStatus]],
    "config.reload": dict[str, str],
    "daemon.upgrade": dict[str, str],
    "daemon.drain": dict[str, str],
    "capabilities": dict[str, list[dict[str, Any]]],
}
CLIENTS = {
    "status": to_status,
    "route.list": to_routes,
    "metrics": to_metrics,
    "watch": to_change,
    "logs": to_log_line,
}


def test_the_conversation_is_one() -> None:
    client = ClientConnection()
    asked: dict[str, Control] = {}
    for exchange in conversation():
        request = _request(exchange)
        if isinstance(request, Cancel):
            client.send_cancel(request.id)
        else:
            assert request.id not in asked
            asked[request.id] = request
            client.send_request(request)
        for plain in exchange.answers:
            client.receive_data(pack(FrameType.JSON, json.dumps(plain).encode()))
            event = client.next_event()
            assert isinstance(event, AnswerReceived)
            _check_answer(asked[event.id], event.answer)
            if event.terminal:
                del asked[event.id]
    assert not asked


def test_the_status_is_what_clients_know() -> None:
    (answers,) = (one.answers for one in conversation() if one.request["op"] == "status")
    (answer,) = answers
    assert set(answer["value"]) == set(Status.__struct_fields__)


def _request(exchange: Exchange) -> Control | Cancel:
    request = decode_request(FrameType.JSON, json.dumps(exchange.request).encode())
    assert isinstance(request, Control | Cancel)
    if isinstance(request, Control) and request.id != "e0":  # which shows a mistake
        kind = ARGUMENTS.get(request.op, RuntimeRef if request.op.startswith("runtime.") else None)
        if request.op in ("runtime.list", *CLIENTS) and request.op != "logs":
            assert request.arguments == {}
        elif kind is not None:
            msgspec.convert(request.arguments, kind)
            assert set(request.arguments) <= set(kind.__struct_fields__)
    return request


def _check_answer(request: Control, answer: object) -> None:
    match answer:
        case Error() | StreamDone():
            return
        case Result(value=value) | Item(value=value):
            pass
        case _:
            raise AssertionError(answer)
    if request.op in CLIENTS:
        CLIENTS[request.op](value)
        return
    kind = READERS.get(request.op)
    if request.op == "lease.ensure":
        kind = EnsurePlan if request.arguments.get("plan") else LeaseEnsured
    # nothing is missing, and nothing is there that the record does not know
    assert msgspec.to_builtins(msgspec.convert(value, kind)) == value
