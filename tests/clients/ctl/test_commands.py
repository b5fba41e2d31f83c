"""Each verb against a scripted daemon: what it prints, where, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

from inferd_client.ctl import main
from inferd_proto import (
    BlockAnswer,
    Control,
    DoneV2,
    Embed,
    ErrorCode,
    GenerateV2,
    Queued,
    Result,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolUse,
    Usage,
)
from tests.clients.ctl.running import Ctl, Ended
from tests.clients.scripted_daemon import (
    METRICS,
    PATIENCE_S,
    STATUS,
    Asked,
    ScriptedDaemon,
    friendly,
)


def _process(daemon: ScriptedDaemon, *argv: str, stdin: bytes | None = b"") -> Ended:
    ran = subprocess.run(
        [sys.executable, "-m", "inferd_client.ctl", *argv],
        input=stdin,
        capture_output=True,
        timeout=60,
        env=os.environ | {"INFERD_SOCKET": str(daemon.path)},
        check=False,
    )
    return Ended(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


def _generate(asked: Asked) -> GenerateV2:
    assert isinstance(asked.request, GenerateV2)
    return asked.request


def _prompt(daemon: ScriptedDaemon) -> str:
    (block,) = _generate(daemon.asked[-1]).messages[-1].content
    assert isinstance(block, Text)
    return block.text


# -- run -----------------------------------------------------------------------------------


def test_run_prints_the_text_alone(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    ended = ctl("run", "demo", "Hi", "--system", "Be brief.", "--max-tokens", "9", "--seed", "3")
    assert (ended.code, ended.out, ended.err) == (0, "Hello from inferd.\n", "")
    asked = _generate(daemon.asked[-1])
    assert (asked.model, asked.max_tokens, asked.seed, asked.client) == ("demo", 9, 3, "inferdctl")
    assert asked.messages[0].content == [Text("Be brief.")]


@pytest.mark.parametrize(
    ("arguments", "model", "prompt"),
    [
        (["Why?"], None, "Why?"),
        (["gpt", "Why?"], "gpt", "Why?"),
        (["unknown", "Why?"], "unknown", "Why?"),
    ],
)
def test_run_tells_a_model_from_a_prompt(
    ctl: Ctl, daemon: ScriptedDaemon, arguments: list[str], model: str | None, prompt: str
) -> None:
    assert ctl("run", *arguments).code == 0
    assert (_generate(daemon.asked[-1]).model, _prompt(daemon)) == (model, prompt)


def test_run_reads_what_is_piped_in(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    ended = _process(daemon, "run", "gpt", stdin="Größe?\n".encode())
    assert (ended.code, ended.out) == (0, "Hello from inferd.\n")
    assert (_generate(daemon.asked[-1]).model, _prompt(daemon)) == ("gpt", "Größe?")
    _process(daemon, "run", "Sum this up:", stdin=b"a long text\n")
    assert _prompt(daemon) == "Sum this up:\n\na long text"
    ended = _process(daemon, "run", stdin=b"\xff\xfe")
    assert (ended.code, ended.out) == (64, "")
    assert "not UTF-8" in ended.err
    ended = _process(daemon, "run", stdin=b"")
    assert ended.code == 64
    assert ended.err.splitlines() == [
        "inferdctl run: there is no prompt: give one, or pipe one in; see `inferdctl run --help`"
    ]


def test_run_works_with_a_daemon_that_knows_no_routes(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        if isinstance(asked.request, Control):
            asked.fail(ErrorCode.INVALID_REQUEST, "no such op")
        else:
            friendly(asked)

    daemon.script = script
    assert ctl("run", "Hi").out == "Hello from inferd.\n"


def _everything(asked: Asked) -> None:
    if isinstance(asked.request, Control):
        friendly(asked)
        return
    blocks = (
        Queued(1, 5),
        ThinkingDelta("hm"),
        TextDelta("\x1b[31mred"),
        ToolUse("c1", "weather", {"city": "Oslo"}),
    )
    for block in blocks:
        asked.send(BlockAnswer(asked.id, block))
    asked.done(4, "tool_use")


def test_run_leaves_a_pipe_the_raw_text_and_no_thinking(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    daemon.script = _everything
    ended = ctl("run", "Hi", "-v", "--think")
    assert ended.out == '\x1b[31mred\nweather({"city": "Oslo"})\n'
    assert "4 tokens in " in ended.err
    assert _generate(daemon.asked[-1]).thinking is True


def test_run_json_is_one_event_a_line(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    daemon.script = _everything
    events = [json.loads(line) for line in ctl("run", "Hi", "--json").out.splitlines()]
    assert [event["type"] for event in events] == ["queued", "thinking", "text", "tool_use", "done"]
    assert events[2]["delta"] == "\x1b[31mred"
    assert events[4]["usage"] == {"input_tokens": 7, "output_tokens": 4}


def test_run_fails_in_one_line(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        if isinstance(asked.request, Control):
            friendly(asked)
            return
        asked.text("half an ans")
        asked.fail(ErrorCode.BACKEND_UNAVAILABLE, "the worker\nwas killed.")

    daemon.script = script
    ended = ctl("run", "Hi")
    assert (ended.code, ended.out) == (1, "half an ans\n")
    assert ended.err == (
        "inferdctl: the worker was killed (backend_unavailable);"
        " `inferdctl status` tells how the backends are\n"
    )
    last = ctl("run", "Hi", "--json").out.splitlines()[-1]
    assert json.loads(last) == {
        "type": "error",
        "code": "backend_unavailable",
        "message": "the worker\nwas killed.",
    }


@pytest.mark.parametrize(("reason", "code"), [("max_tokens", 0), ("error", 1), ("cancelled", 1)])
def test_run_says_when_an_answer_is_not_whole(
    ctl: Ctl, daemon: ScriptedDaemon, reason: str, code: int
) -> None:
    def script(asked: Asked) -> None:
        if isinstance(asked.request, Control):
            friendly(asked)
        else:
            asked.send(DoneV2(asked.id, Usage(1, 1), reason, "x"))  # type: ignore[arg-type]

    daemon.script = script
    ended = ctl("run", "Hi")
    assert ended.code == code
    assert len(ended.err.splitlines()) == 1


def test_ctrl_c_cancels_and_exits_130(daemon: ScriptedDaemon) -> None:
    running = threading.Event()

    def script(asked: Asked) -> None:
        if isinstance(asked.request, Control):
            friendly(asked)
            return
        asked.text("one ")
        running.set()
        asked.await_cancel()

    daemon.script = script
    with subprocess.Popen(
        [sys.executable, "-m", "inferd_client.ctl", "run", "Hi"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"INFERD_SOCKET": str(daemon.path)},
    ) as process:
        assert process.stdout is not None
        assert running.wait(PATIENCE_S)
        assert os.read(process.stdout.fileno(), 100) == b"one "
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err.strip()) == (b"\n", b"")
    assert daemon.asked[-1].cancelled.wait(PATIENCE_S)
    assert daemon.clean_ends.acquire(timeout=PATIENCE_S)


def test_a_reader_that_leaves_ends_it_quietly(daemon: ScriptedDaemon) -> None:
    def script(asked: Asked) -> None:
        if isinstance(asked.request, Control):
            friendly(asked)
            return
        while not asked.cancelled.is_set():
            asked.text("more ")
        asked.done(reason="cancelled")

    daemon.script = script
    shell = f"{sys.executable} -m inferd_client.ctl run Hi | head -c 4"
    ran = subprocess.run(
        ["sh", "-c", shell],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        env=os.environ | {"INFERD_SOCKET": str(daemon.path)},
        check=True,
    )
    assert (ran.stdout, ran.stderr) == (b"more", b"")


@pytest.mark.parametrize("argv", [["run", "Hi"], ["run", "Hi", "--json"], ["status"], ["--help"]])
def test_a_full_disk_is_one_line(daemon: ScriptedDaemon, argv: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "inferd_client.ctl", *argv],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            env=os.environ | {"INFERD_SOCKET": str(daemon.path)},
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr == b"inferdctl: No space left on device\n"


# -- the other verbs -----------------------------------------------------------------------


def test_status_of_a_daemon_that_is_ready(ctl: Ctl) -> None:
    ended = ctl("status")
    assert ended.code == 0
    assert ended.out.startswith("inferd 0.1.0 is ready: pid 4242")
    assert "the model is loading" in ended.out
    assert "\x1b" not in ended.out
    ended = ctl("status", "--json")
    assert ended.code == 0
    assert ended.out.count("\n") == 1
    assert json.loads(ended.out) == STATUS


def test_status_of_a_daemon_that_is_not_ready(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda asked: asked.send(
        Result(asked.id, STATUS | {"ready": False, "state": "draining"})
    )
    ended = ctl("status")
    assert ended.code == 1
    assert "is draining" in ended.out


def test_status_without_a_daemon(ctl: Ctl, tmp_path: Path) -> None:
    path = str(tmp_path / "none.sock")
    ended = ctl("status", "--socket", path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"inferdctl: no daemon runs here: there is no socket at {path};"
        " start one with `inferd`, or see it work with `inferdctl demo`\n"
    )
    down = json.loads(ctl("status", "--socket", path, "--json").out)
    assert (down["state"], down["ready"]) == ("down", False)
    for verb in (["run", "Hi"], ["embed", "x"], ["routes"]):
        assert ctl(*verb, "--socket", path).code == 2


@pytest.mark.parametrize("verb", [["status"], ["lease", "ls"]])
def test_the_socket_may_stand_before_the_command(ctl: Ctl, tmp_path: Path, verb: list[str]) -> None:
    before, own = tmp_path / "before.sock", tmp_path / "own.sock"
    assert str(before) in ctl("--socket", str(before), *verb).err
    assert str(own) in ctl("--socket", str(before), *verb, "--socket", str(own)).err


def test_routes(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    assert [line.split()[0] for line in ctl("routes").out.splitlines() if line.strip()] == [
        "NAME",
        "─" * len(ctl("routes").out.splitlines()[2].split()[0]),
        "demo*",
        "big",
        "big:",
    ]
    assert "\nbig: the model is loading\n" in ctl("routes").out
    assert ctl("routes", "-q").out == "demo\nbig\n"
    assert json.loads(ctl("routes", "--json").out) == {"routes": STATUS["routes"]}
    daemon.script = lambda asked: asked.send(Result(asked.id, {"routes": []}))
    assert ctl("routes").out == "The daemon has no routes.\n"


def test_metrics(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    ended = ctl("metrics")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[-3:] == [
        "# HELP inferd_leases Live leases.",
        "# TYPE inferd_leases gauge",
        "inferd_leases 2.0",
    ]
    assert 'inferd_request_duration_seconds_bucket{le="+Inf",route="demo"} 4.0' in lines
    assert json.loads(ctl("metrics", "--json").out) == METRICS
    daemon.script = lambda asked: asked.send(Result(asked.id, {"metrics": 1}))
    ended = ctl("metrics")
    assert (ended.code, ended.out) == (1, "")
    assert "makes no sense" in ended.err


def test_embed(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    ended = ctl("embed", "a", "b", "-m", "demo", "--task", "similarity", "--dimensions", "3")
    assert ended.out == "[0.0,0.5,1.0]\n[1.0,0.5,1.0]\n"
    asked = daemon.asked[-1].request
    assert isinstance(asked, Embed)
    assert (asked.input, asked.model, asked.task) == (["a", "b"], "demo", "similarity")
    whole = json.loads(ctl("embed", "a", "--json").out)
    assert whole["usage"] == {"input_tokens": 4}
    assert "id" not in whole
    assert _process(daemon, "embed", stdin=b"one\n\ntwo\n").out == "[0.0,0.5,1.0]\n[1.0,0.5,1.0]\n"
    assert _process(daemon, "embed", stdin=b"").code == 64


# -- the whole -----------------------------------------------------------------------------


def test_the_version(ctl: Ctl) -> None:
    from inferd_proto import __version__

    assert ctl("--version").out == f"inferdctl {__version__}\n"


def test_start_up_loads_no_library_that_it_does_not_need() -> None:
    """What would cost most of the 150 ms that it has (`tests.bench.startup` measures them)."""
    heavy = {"anyio", "asyncio", "httpx", "ssl", "structlog", "subprocess", "trio"}
    code = (
        "import runpy, sys\n"
        "sys.argv = ['inferdctl', '--version']\n"
        "try: runpy.run_module('inferd_client.ctl', run_name='__main__')\n"
        "except SystemExit: print(*sys.modules, sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    version, *loaded = done.stdout.splitlines()
    assert version.startswith("inferdctl ")
    assert "inferd_client.ctl.main" in loaded
    assert heavy.isdisjoint(loaded)


VERBS = (
    "demo",
    "run",
    "embed",
    "rerank",
    "status",
    "routes",
    "metrics",
    "ps",
    "load",
    "unload",
    "stop",
    "restart",
    "logs",
    "watch",
    "endpoint",
    "agent",
    "lease",
    "daemon",
    "completion",
)
LEASE_VERBS = ("lease ensure", "lease renew", "lease release", "lease ls")
AGENT_VERBS = ("agent ls", "agent run", "agent endpoint")
DAEMON_VERBS = ("daemon upgrade", "daemon drain")


@pytest.mark.parametrize("verb", [*VERBS, *LEASE_VERBS, *AGENT_VERBS, *DAEMON_VERBS])
def test_every_help_has_examples(ctl: Ctl, verb: str) -> None:
    *group, name = verb.split()
    assert f"  {name}" in ctl(*group, "--help").out
    ended = ctl(*verb.split(), "--help")
    assert ended.code == 0
    assert "examples:" in ended.out
    assert f"inferdctl {verb}" in ended.out


def test_every_verb_is_known() -> None:
    assert sorted(main.cli.list_commands(click.Context(main.cli))) == sorted(VERBS)


def test_no_verb_is_help(ctl: Ctl) -> None:
    assert ctl().out == ctl("--help").out
    for group in ("lease", "daemon"):
        assert ctl(group).out == ctl(group, "--help").out


@pytest.mark.parametrize(
    "argv",
    [["sing"], ["run", "a", "b", "c"], ["status", "--wait", "x"], ["--nope"], ["completion"]],
)
def test_a_wrong_command_line_is_one_line_and_64(ctl: Ctl, argv: list[str]) -> None:
    ended = ctl(*argv)
    assert (ended.code, ended.out) == (64, "")
    assert len(ended.err.splitlines()) == 1
    assert "--help" in ended.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(ctl: Ctl, shell: str) -> None:
    assert f"_INFERDCTL_COMPLETE={shell}_complete" in ctl("completion", shell).out


def test_completion_knows_verbs_and_routes(daemon: ScriptedDaemon) -> None:
    def complete(words: str) -> list[str]:
        ran = subprocess.run(
            [sys.executable, "-m", "inferd_client.ctl"],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ
            | {
                "INFERD_SOCKET": str(daemon.path),
                "_INFERDCTL_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(words.count(" ")),
            },
            check=True,
        )
        return [line.partition(",")[2] for line in ran.stdout.split()]

    assert complete("inferdctl sta") == ["status"]
    assert complete("inferdctl stop ti") == ["tiny"]
    assert complete("inferdctl run ") == ["demo", "gpt", "big"]
    assert complete("inferdctl run b") == ["big"]
