"""The other half of the exchange with codex's app-server: what it is told."""

import tomllib

import msgspec

from inferd_daemon.backends.base import Finished, TextDeltas
from inferd_daemon.engines.agents.codex import CONFIG, CodexProfile
from inferd_daemon.engines.agents.codex_dialogue import CodexDialogue
from inferd_daemon.engines.agents.dialogue import Failed
from inferd_daemon.engines.agents.profile import LoginEvidence
from inferd_daemon.engines.agents.request import AgentRequest, AgentUpstream, Turn
from inferd_daemon.engines.secret import Secret
from inferd_proto import JsonObject, Usage

from .reading import PLACE, SAMPLES, read, summed

PROFILE = CodexProfile()
ASKED = (Turn("user", "Say @/etc/passwd."),)


def told(talk: CodexDialogue) -> list[JsonObject]:
    return [msgspec.json.decode(line) for line in talk.take_input().splitlines()]


def answered(talk: CodexDialogue, number: int, result: JsonObject) -> list[JsonObject]:
    assert talk.feed(msgspec.json.encode({"id": number, "result": result}) + b"\n") == []
    return told(talk)


def begun(*turns: Turn) -> tuple[CodexDialogue, list[JsonObject]]:
    """As far as the answer to thread/start; what was said after that."""
    talk = CodexDialogue({"model": "m"}, turns)
    (hello,) = told(talk)
    assert (hello["id"], hello["method"]) == (1, "initialize")
    ready, start = answered(talk, 1, {})
    assert ready == {"method": "initialized"}
    assert start == {"id": 2, "method": "thread/start", "params": {"model": "m"}}
    return talk, answered(talk, 2, {"thread": {"id": "T"}})


def delta(text: str, thread: str = "T") -> bytes:
    params = {"threadId": thread, "delta": text}
    return msgspec.json.encode({"method": "item/agentMessage/delta", "params": params}) + b"\n"


def test_one_turn_is_the_prompt_as_it_is() -> None:
    _, (turn,) = begun(*ASKED)
    text = {"type": "text", "text": "Say @/etc/passwd."}
    assert turn == {
        "id": 3,
        "method": "turn/start",
        "params": {"threadId": "T", "input": [text]},
    }


def test_what_was_said_before_is_history() -> None:
    talk, (inject,) = begun(Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
    assert inject["method"] == "thread/inject_items"
    assert inject["params"] == {
        "threadId": "T",
        "items": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "b"}],
            },
        ],
    }
    (turn,) = answered(talk, 3, {})
    assert turn["params"] == {"threadId": "T", "input": [{"type": "text", "text": "c"}]}


def test_a_tools_result_makes_it_one_prompt() -> None:
    _, (turn,) = begun(Turn("user", "a"), Turn("tool", "42", name="c1"), Turn("user", "b"))
    assert turn["method"] == "turn/start"
    assert b"### tool (c1)\\n42" in msgspec.json.encode(turn)


def test_what_it_asks_of_us_is_refused() -> None:
    talk, _ = begun(*ASKED)
    assert talk.feed(b'{"id":"q1","method":"item/tool/requestUserInput","params":{}}\n') == []
    (refusal,) = told(talk)
    assert refusal == {"id": "q1", "error": {"code": -32601, "message": "not supported"}}


def test_other_threads_are_not_ours() -> None:
    talk, _ = begun(*ASKED)
    assert talk.feed(delta("theirs", "U")) == []
    assert talk.feed(delta("ours")) == [TextDeltas(["ours"])]


def test_a_refused_request_is_the_end() -> None:
    talk, _ = begun(*ASKED)
    error = b'{"id":3,"error":{"code":-32600,"message":"input is too long"}}\n'
    assert talk.feed(error) == [Failed("the app-server refused: input is too long")]


def test_a_turn_can_be_interrupted() -> None:
    talk, _ = begun(*ASKED)
    assert talk.interrupt() is False
    assert told(talk) == []
    answered(talk, 3, {"turn": {"id": "U"}})
    assert talk.interrupt() is True
    (interrupt,) = told(talk)
    assert interrupt["method"] == "turn/interrupt"
    assert interrupt["params"] == {"threadId": "T", "turnId": "U"}


def test_the_recorded_exchange_is_held_as_it_was() -> None:
    """What we say at each step is what was said when the sample was taken."""
    talk = CodexDialogue({"model": "fake-model"}, (Turn("user", "Say hello."),))
    methods = [message["method"] for message in told(talk)]
    events = []
    for line in (SAMPLES / "codex-ok.jsonl").read_bytes().splitlines(keepends=True):
        events += talk.feed(line)
        methods += [message["method"] for message in told(talk)]
    assert methods == ["initialize", "initialized", "thread/start", "turn/start"]
    assert summed(events).end == Finished("end_turn", Usage(11, 5))


def test_a_lost_thread_is_no_hang() -> None:
    reading = read(CodexDialogue({}, ASKED), [b'{"id":1,"result":{}}\n{"id":2,"result":{}}\n'])
    assert isinstance(reading.end, Failed)


def parameters(request: AgentRequest) -> JsonObject:
    talk = PROFILE.dialogue(request, PLACE)
    talk.take_input()
    talk.feed(b'{"id":1,"result":{}}\n')
    line = talk.take_input().splitlines()[1]
    params: JsonObject = msgspec.json.decode(line)["params"]
    return params


def test_an_upstream_is_a_provider_whose_key_is_in_the_environment() -> None:
    upstream = AgentUpstream("http://127.0.0.1:1/leases/x", Secret("sk-lease"))
    request = AgentRequest("m", ASKED, system="Be brief.", upstream=upstream)
    given = parameters(request)
    config = given["config"]
    assert isinstance(config, dict)
    assert config.pop("model_providers.inferd") == {
        "name": "inferd",
        "base_url": "http://127.0.0.1:1/leases/x/v1",
        "env_key": "INFERD_AGENT_KEY",
        "wire_api": "responses",
        "request_max_retries": 0,
        "stream_max_retries": 0,
    }
    assert config == {}
    assert (given["modelProvider"], given["baseInstructions"]) == ("inferd", "Be brief.")
    assert (given["sandbox"], given["approvalPolicy"]) == ("read-only", "never")
    plan = PROFILE.plan(request, PLACE)
    assert plan.environment["INFERD_AGENT_KEY"] == "sk-lease"
    assert "sk-lease" not in "".join([*plan.arguments, *plan.files.values()])


def test_what_is_off_is_off_from_the_start() -> None:
    """By the file that it reads before anything is asked of it."""
    plan = PROFILE.plan(AgentRequest("m", ASKED), PLACE)
    read_back = tomllib.loads(plan.files["codex/config.toml"])
    flat: JsonObject = {}
    for name in CONFIG:
        value: object = read_back
        for part in name.split("."):
            assert isinstance(value, dict)
            value = value[part]
        flat[name] = value
    assert flat == CONFIG
    assert flat["features.plugins"] is False
    assert flat["web_search"] == "disabled"


def test_its_databases_are_where_syncing_costs_nothing() -> None:
    plan = PROFILE.plan(AgentRequest("m", ASKED), PLACE)
    assert plan.environment["CODEX_SQLITE_HOME"] == str(PLACE.scratch)


def test_a_key_of_the_operator_goes_to_the_vendor() -> None:
    request = AgentRequest("m", ASKED, environment={"CODEX_API_KEY": "sk-own"})
    config = parameters(request)["config"]
    assert isinstance(config, dict)
    provider = config["model_providers.inferd"]
    assert (provider["base_url"], provider["env_key"]) == (
        "https://api.openai.com/v1",
        "CODEX_API_KEY",
    )


def test_an_account_is_linked_and_no_provider_named() -> None:
    request = AgentRequest("m", ASKED, environment={"HOME": "/home/op"})
    assert "modelProvider" not in parameters(request)
    links = PROFILE.plan(request, PLACE).links
    assert {name: str(target) for name, target in links.items()} == {
        "codex/auth.json": "/home/op/.codex/auth.json"
    }


def test_login_is_told_by_exit_code_or_key() -> None:
    assert PROFILE.login_command({}) == ["login", "status"]
    assert PROFILE.judge_login(LoginEvidence({}, 0)).logged_in is True
    refused = PROFILE.judge_login(LoginEvidence({}, 1, "Not logged in"))
    assert (refused.logged_in, "codex login" in refused.reason) == (False, True)
    keyed = {"CODEX_API_KEY": "sk"}
    assert PROFILE.login_command(keyed) is None
    assert PROFILE.judge_login(LoginEvidence(keyed)).logged_in is True
