"""Real CLIs of agents, each at an upstream that the test starts: no account, no real key."""

import os
import random
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
import trio

from inferd_daemon.backends.base import Finished, TextDeltas
from inferd_daemon.engines.agents.claude import ClaudeDialogue, ClaudeProfile
from inferd_daemon.engines.agents.codex import CodexProfile
from inferd_daemon.engines.agents.dialogue import AgentDialogue
from inferd_daemon.engines.agents.profile import Place, Plan
from inferd_daemon.engines.agents.registry import PROFILES
from inferd_daemon.engines.agents.request import OWN_MODEL, AgentLimits, AgentRequest, Turn
from inferd_daemon.errors import RequestError
from inferd_daemon.supervision.agents.probe import probe
from inferd_proto import ErrorCode, JsonObject, Usage
from tests.support.agent_clis import KEY, REAL, WAIT_S, ask, cli_path, request_to, running, start
from tests.support.model_answers import INPUT_TOKENS, OUTPUT_TOKENS, PROTOCOLS, WORDS
from tests.support.ports import kept_port
from tests.support.processes import until
from tests.support.scripted_upstream import Close, Hang, Hold, Pause, ScriptedUpstream, Until, serve

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("provider", REAL)
SECRET = "THE-CONTENT-OF-THE-PLANTED-FILE"


def posted(upstream: ScriptedUpstream) -> list[JsonObject]:
    """Bodies of what models were asked."""
    return [
        msgspec.json.decode(request.body)
        for request in upstream.requests
        if request.method == "POST"
    ]


@BOTH
async def test_a_whole_answer(provider: str, tmp_path: Path) -> None:
    protocol = PROTOCOLS[provider]
    async with serve(tmp_path, *protocol.prelude(), protocol.answer(), tcp=True) as upstream:
        answer = await ask(provider, request_to(upstream.url, system="Be brief."), tmp_path)
    assert answer.text == "".join(WORDS)
    assert answer.end == Finished("end_turn", Usage(INPUT_TOKENS, OUTPUT_TOKENS))
    request = upstream.requests[-1]
    assert (request.method, request.path) == ("POST", protocol.path)
    assert request.headers["authorization"] == f"Bearer {KEY}"
    (body,) = posted(upstream)
    assert body["model"] == "test-model"
    assert b"Be brief." in request.body
    assert b"Say hello." in request.body
    names = [tool["name"] for tool in body["tools"]]  # type: ignore[attr-defined]
    # This one it cannot be kept from offering; asking for it is refused.
    assert names == (["request_user_input"] if provider == "codex" else [])
    assert running(tmp_path) == []
    assert list((tmp_path / "runs").iterdir()) == []


@BOTH
async def test_text_comes_while_the_upstream_writes(provider: str, tmp_path: Path) -> None:
    protocol = PROTOCOLS[provider]
    script = [*protocol.beginning(), protocol.word("first"), Hold()]
    async with serve(tmp_path, *protocol.prelude(), script, tcp=True) as upstream:
        run = start(provider, request_to(upstream.url), tmp_path)
        with trio.fail_after(WAIT_S):
            async with aclosing(run):
                assert await anext(run) == [TextDeltas(["first"])]
                assert not upstream.gone.is_set()
    seen = [trio.Event() for _ in WORDS]
    steps = protocol.beginning()
    for word, event in zip(WORDS, seen, strict=True):
        steps += [protocol.word(word), Until(event)]
    slow = [*steps, *protocol.ending("".join(WORDS), cut=False)]
    async with serve(tmp_path, *protocol.prelude(), slow, tcp=True) as upstream:
        run = start(provider, request_to(upstream.url), tmp_path)
        with trio.fail_after(WAIT_S):
            async with aclosing(run):
                for word, event in zip(WORDS, seen, strict=True):
                    assert await anext(run) == [TextDeltas([word])]
                    event.set()
                (end,) = [event async for batch in run for event in batch]
    assert isinstance(end, Finished)


@BOTH
async def test_a_disconnect_closes_the_upstream_and_ends_the_process(
    provider: str, tmp_path: Path
) -> None:
    protocol = PROTOCOLS[provider]
    script = [*protocol.beginning(), protocol.word("first"), Hold()]
    async with serve(tmp_path, *protocol.prelude(), script, tcp=True) as upstream:
        # who had leave to go by itself would have ten minutes
        limits = AgentLimits(deadline_s=WAIT_S, grace_s=600)
        run = start(provider, request_to(upstream.url, limits=limits), tmp_path)
        with trio.fail_after(WAIT_S):
            await anext(run)
        assert running(tmp_path)
        await run.aclose()
        assert running(tmp_path) == []
        with trio.fail_after(WAIT_S):
            await upstream.gone.wait()


@BOTH
async def test_a_disconnect_before_any_answer(provider: str, tmp_path: Path) -> None:
    async with serve(tmp_path, *PROTOCOLS[provider].prelude(), [Hold()], tcp=True) as upstream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, provider, request_to(upstream.url), tmp_path)
            await until(lambda: posted(upstream), WAIT_S)
            nursery.cancel_scope.cancel()
        assert running(tmp_path) == []
        with trio.fail_after(WAIT_S):
            await upstream.gone.wait()


@BOTH
@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, ErrorCode.BACKEND_UNAVAILABLE, "refused the key of this run"),
        (429, ErrorCode.QUEUE_FULL, "try later"),
        (500, ErrorCode.BACKEND_UNAVAILABLE, "answered 500"),
    ],
)
async def test_an_upstream_that_refuses(
    provider: str, status: int, code: ErrorCode, says: str, tmp_path: Path
) -> None:
    protocol = PROTOCOLS[provider]
    script = protocol.refusal(status, f"because of {KEY}")
    async with serve(tmp_path, *protocol.prelude(), script, tcp=True) as upstream:
        with pytest.raises(RequestError) as failed:
            await ask(provider, request_to(upstream.url), tmp_path)
    assert failed.value.code is code
    assert says in failed.value.message
    assert KEY not in failed.value.message
    # No second try.
    assert len(posted(upstream)) == 1


@BOTH
async def test_a_wrong_model(provider: str, tmp_path: Path) -> None:
    protocol = PROTOCOLS[provider]
    script = protocol.refusal(404, "model: no-such-model")
    async with serve(tmp_path, *protocol.prelude(), script, tcp=True) as upstream:
        with pytest.raises(RequestError) as failed:
            await ask(provider, request_to(upstream.url, model="no-such-model"), tmp_path)
    assert failed.value.code is ErrorCode.NOT_FOUND
    assert "has no model 'no-such-model'" in failed.value.message
    assert posted(upstream)[0]["model"] == "no-such-model"


@BOTH
async def test_a_stream_that_breaks(provider: str, tmp_path: Path) -> None:
    protocol = PROTOCOLS[provider]
    taken = trio.Event()
    script = [*protocol.beginning(), protocol.word("some"), Until(taken), Close()]
    async with serve(tmp_path, *protocol.prelude(), script, tcp=True) as upstream:
        run = start(provider, request_to(upstream.url), tmp_path)
        async with aclosing(run):
            assert await anext(run) == [TextDeltas(["some"])]
            taken.set()
            with pytest.raises(RequestError) as failed:
                await anext(run)
    assert failed.value.code is ErrorCode.BACKEND_UNAVAILABLE
    assert len(posted(upstream)) == 1


@BOTH
async def test_nobody_listens(provider: str, tmp_path: Path) -> None:
    with kept_port() as port, pytest.raises(RequestError) as failed:
        await ask(provider, request_to(f"http://127.0.0.1:{port}"), tmp_path)
    # and not that its deadline has passed
    assert failed.value.code is ErrorCode.BACKEND_UNAVAILABLE


@BOTH
async def test_an_upstream_that_never_answers(provider: str, tmp_path: Path) -> None:
    async with serve(tmp_path, *PROTOCOLS[provider].prelude(), [Hang()], tcp=True) as upstream:
        request = request_to(upstream.url, limits=AgentLimits(deadline_s=3))
        with pytest.raises(RequestError) as failed:
            await ask(provider, request, tmp_path)
    assert failed.value.code is ErrorCode.TIMEOUT
    assert running(tmp_path) == []


@BOTH
async def test_the_token_limit_ends_the_run(provider: str, tmp_path: Path) -> None:
    protocol = PROTOCOLS[provider]
    script = protocol.answer(cut=True)
    async with serve(tmp_path, *protocol.prelude(), script, tcp=True) as upstream:
        answer = await ask(provider, request_to(upstream.url, max_tokens=5), tmp_path)
    assert answer.text == "".join(WORDS)
    assert answer.end.stop_reason == "max_tokens"
    body, *_ = posted(upstream)  # on a busy machine it may ask again before it is ended
    assert body.get("max_tokens") == (5 if provider == "claude" else None)


async def test_codex_is_stopped_where_it_cannot_be_told(tmp_path: Path) -> None:
    script = PROTOCOLS["codex"].answer(["word "] * 50, between=[Pause(0.01)])
    async with serve(tmp_path, script, tcp=True) as upstream:
        answer = await ask("codex", request_to(upstream.url, max_tokens=7), tmp_path)
        with trio.fail_after(WAIT_S):
            await upstream.gone.wait()
    assert answer.text == "word " * 7
    assert answer.end == Finished("max_tokens", Usage(0, 7), counted=False)


@BOTH
@pytest.mark.parametrize(
    "template", ["{}", "tell me of {} now", "@", "/help me", "/{}", "!ls", "# x"]
)
async def test_a_prompt_is_only_text(provider: str, template: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.txt"
    planted.write_text(SECRET)
    prompt = template.format(f"@{planted} @../../../planted.txt")
    protocol = PROTOCOLS[provider]
    async with serve(tmp_path, *protocol.prelude(), protocol.answer(), tcp=True) as upstream:
        answer = await ask(provider, request_to(upstream.url, prompt), tmp_path)
    assert answer.text == "".join(WORDS)
    (request,) = (request for request in upstream.requests if request.method == "POST")
    assert prompt.encode() in request.body
    assert SECRET.encode() not in request.body


@pytest.mark.parametrize("finds", [False, True])
async def test_codex_runs_nothing_of_the_machine(finds: bool, tmp_path: Path) -> None:
    """Left to itself it asks a script what machine this is, and git for its vendor's news."""

    class Open(CodexProfile):
        runs_programs = finds

    planted = tmp_path / "bin"
    planted.mkdir()
    for name in ("lsb_release", "getconf", "git", "sh"):
        program = planted / name
        program.write_text(f"#!/bin/bash\necho {name} >> {tmp_path}/ran\n")
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{planted}:{os.environ['PATH']}"}
    protocol = PROTOCOLS["codex"]
    async with serve(tmp_path, protocol.answer(), tcp=True) as upstream:
        request = request_to(upstream.url, environment=environment)
        answer = await ask("codex", request, tmp_path, Open())
    assert answer.text == "".join(WORDS)
    ran = (tmp_path / "ran").read_text().split() if finds else []
    assert (tmp_path / "ran").exists() is finds
    assert "git" not in ran


ATTACHMENTS, SIMPLE = "CLAUDE_CODE_DISABLE_ATTACHMENTS", "CLAUDE_CODE_SIMPLE"


@pytest.mark.parametrize(
    ("missing", "seen"),
    [((ATTACHMENTS, SIMPLE), True), ((SIMPLE,), False), ((ATTACHMENTS,), False)],
)
async def test_the_planted_file_would_be_seen(
    missing: tuple[str, ...], seen: bool, tmp_path: Path
) -> None:
    """Without both switches claude does read it: the test before this one can fail. The second is
    not set for an account, where the first has to do."""

    class Open(ClaudeProfile):
        def plan(self, request: AgentRequest, place: Place) -> Plan:
            plan = super().plan(request, place)
            for name in missing:
                del plan.environment[name]
            return plan

    planted = tmp_path / "planted.txt"
    planted.write_text(SECRET)
    protocol = PROTOCOLS["claude"]
    async with serve(tmp_path, *protocol.prelude(), protocol.answer(), tcp=True) as upstream:
        await ask("claude", request_to(upstream.url, f"see @{planted}"), tmp_path, Open())
    assert (SECRET.encode() in upstream.requests[-1].body) is seen


async def test_a_command_would_be_one(tmp_path: Path) -> None:
    """Said as it is, claude answers it by itself: no model is asked."""

    class Open(ClaudeProfile):
        def dialogue(self, request: AgentRequest, place: Place) -> AgentDialogue:
            return ClaudeDialogue(request.turns[0].text.encode())

    protocol = PROTOCOLS["claude"]
    async with serve(tmp_path, *protocol.prelude(), protocol.answer(), tcp=True) as upstream:
        with pytest.raises(RequestError, match="without asking the model"):
            await ask("claude", request_to(upstream.url, "/help me"), tmp_path, Open())
    assert posted(upstream) == []


@BOTH
async def test_who_names_no_model_gets_one_that_the_cli_knows(
    provider: str, tmp_path: Path
) -> None:
    protocol = PROTOCOLS[provider]
    async with serve(tmp_path, *protocol.prelude(), protocol.answer(), tcp=True) as upstream:
        own = {
            "PATH": os.environ["PATH"],
            "ANTHROPIC_AUTH_TOKEN": KEY,
            "ANTHROPIC_BASE_URL": upstream.url,
            "CODEX_API_KEY": KEY,
            "OPENAI_BASE_URL": f"{upstream.url}/v1",
        }
        request = request_to(upstream.url, model=OWN_MODEL, upstream=None, environment=own)
        answer = await ask(provider, request, tmp_path)
    assert answer.text == "".join(WORDS)
    (body,) = posted(upstream)
    assert str(body["model"]).startswith("claude-" if provider == "claude" else "gpt-")


TOOLS = [
    ("codex", "exec_command", {"cmd": "touch {}"}),
    ("codex", "shell", {"command": ["touch", "{}"]}),
    ("codex", "apply_patch", {"input": "*** Begin Patch\n*** Add File: {}\n+x\n*** End Patch"}),
    (
        "codex",
        "request_user_input",
        {"questions": [{"id": "a", "header": "H", "question": "Q?", "options": []}]},
    ),
    ("claude", "Bash", {"command": "touch {}", "description": "x"}),
    ("claude", "Write", {"file_path": "{}", "content": "x"}),
]


@pytest.mark.parametrize(("provider", "name", "arguments"), TOOLS)
async def test_a_tool_that_the_model_asks_for_is_not_run(
    provider: str, name: str, arguments: JsonObject, tmp_path: Path
) -> None:
    """It is told that there is none, and answers again."""
    made = tmp_path / "made-by-a-tool"
    text = msgspec.json.encode(arguments).replace(b"{}", str(made).encode())
    protocol = PROTOCOLS[provider]
    call = protocol.tool_call(name, msgspec.json.decode(text))
    scripts = [*protocol.prelude(), call, protocol.answer()]
    async with serve(tmp_path, *scripts, tcp=True) as upstream:
        answer = await ask(provider, request_to(upstream.url), tmp_path)
    assert answer.text == "".join(WORDS)
    assert len(posted(upstream)) == 2
    assert not made.exists()


@BOTH
async def test_a_conversation(provider: str, tmp_path: Path) -> None:
    turns = (Turn("user", "My name is Ada."), Turn("assistant", "Hello Ada."), Turn("user", "Who?"))
    protocol = PROTOCOLS[provider]
    async with serve(tmp_path, *protocol.prelude(), protocol.answer(), tcp=True) as upstream:
        await ask(provider, request_to(upstream.url, *turns), tmp_path)
    (body,) = posted(upstream)
    if provider == "codex":
        said = [(item["role"], item["content"][0]["text"]) for item in body["input"]]  # type: ignore[attr-defined]
        assert said[1:] == [(turn.role, turn.text) for turn in turns]
    else:
        text = body["messages"][-1]["content"][-1]["text"]  # type: ignore[index]
        assert "### user\nMy name is Ada.\n\n### assistant\nHello Ada.\n\n### user\nWho?" in text


@BOTH
async def test_a_long_prompt(provider: str, tmp_path: Path) -> None:
    prompt = "0123456789abcdef" * (256 * 1024 // 16)
    protocol = PROTOCOLS[provider]
    async with serve(tmp_path, *protocol.prelude(), protocol.answer(), tcp=True) as upstream:
        answer = await ask(provider, request_to(upstream.url, prompt), tmp_path)
    assert answer.text == "".join(WORDS)
    assert prompt.encode() in upstream.requests[-1].body


async def test_disconnects_at_random_leave_nothing(tmp_path: Path) -> None:
    """Fifty: thirty at any time, twenty while the answer comes."""
    chance = random.Random(5)
    protocol = PROTOCOLS["codex"]
    script = [*protocol.beginning(), protocol.word("first"), Hold()]
    limiter = trio.CapacityLimiter(4)

    async def at_any_time(url: str, seconds: float) -> None:
        async with limiter:
            with trio.move_on_after(seconds):
                await ask("codex", request_to(url), tmp_path)

    async def while_it_answers(url: str) -> None:
        async with limiter, aclosing(start("codex", request_to(url), tmp_path)) as run:
            await anext(run)

    async with serve(tmp_path, script, tcp=True) as upstream:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                if number % 5 < 3:
                    nursery.start_soon(at_any_time, upstream.url, chance.uniform(0, 0.6))
                else:
                    nursery.start_soon(while_it_answers, upstream.url)
        assert running(tmp_path) == []
        assert len(posted(upstream)) >= 20
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.fixture
def patient_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe's own limit is for who waits for a lease; a real CLI may be slower than that here."""
    monkeypatch.setattr("inferd_daemon.supervision.agents.probe.PROBE_TIMEOUT_S", WAIT_S)


@pytest.mark.usefixtures("patient_probe")
@BOTH
async def test_a_probe_tells_version_and_login(provider: str, tmp_path: Path) -> None:
    path = cli_path(provider)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    found = await probe(PROFILES[provider], environment, str(path))
    assert found.binary == path
    assert found.version is not None
    assert found.logged_in is False
    assert "logged out" in found.reason
    key = PROFILES[provider].login_variables[0]
    keyed = await probe(PROFILES[provider], {**environment, key: "sk-none"}, str(path))
    assert (keyed.logged_in, keyed.reason) == (True, "")


def everything(directory: Path) -> list[Path]:
    """What is below it."""
    return sorted(directory.rglob("*"))


LOGINS = {
    "claude": [
        (
            ".claude/.credentials.json",
            '{"claudeAiOauth":{"accessToken":"sk-ant-oat01-no",'
            '"refreshToken":"sk-ant-ort01-no","expiresAt":4102444800000,"scopes":["user:inference"]}}',
        ),
        (".claude.json", '{"primaryApiKey":"sk-ant-api03-none"}'),
    ],
    "codex": [(".codex/auth.json", '{"OPENAI_API_KEY":"sk-none"}')],
}


@pytest.mark.parametrize(
    ("provider", "name", "text"),
    [(provider, *login) for provider, logins in LOGINS.items() for login in logins],
)
@pytest.mark.usefixtures("patient_probe")
@pytest.mark.parametrize("moved", [False, True])
async def test_a_probe_sees_a_login_and_writes_nothing_beside_it(
    provider: str, name: str, text: str, moved: bool, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    place = home / name
    if moved:
        place = tmp_path / "moved" / place.name
        environment[PROFILES[provider].home_variables[0]] = str(place.parent)
    home.mkdir()
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)
    before = everything(tmp_path)
    found = await probe(PROFILES[provider], environment, str(cli_path(provider)))
    assert (found.logged_in, found.reason) == (True, "")
    assert everything(tmp_path) == before
    assert place.read_text() == text


@BOTH
def test_with_loopback_alone(provider: str, tmp_path: Path) -> None:
    """In a network namespace of its own nothing but the upstream can be reached, and nothing is."""
    cli_path(provider)
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespace may be made here: needs root or user namespaces")
    done = subprocess.run(
        [*apart, sys.executable, "-m", "tests.support.agent_offline", provider, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(WORDS) + "\n"
