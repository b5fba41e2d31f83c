"""The verbs for runtimes and leases against a scripted daemon."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inferd_proto import ErrorCode, Result
from tests.clients.ctl.running import Ctl
from tests.clients.lease_records import CHANGES, ENDPOINT, ENSURED, KEY, LEASE, PLAN, RUNTIMES
from tests.clients.lease_script import arguments, ops, refuse, when
from tests.clients.scripted_daemon import PATIENCE_S, Asked, ScriptedDaemon

QWEN = LEASE["instance_key"]
REF = "lease-EVjmRWdoy3T5a-W2bgto5D0e"


def rows(text: str) -> list[list[str]]:
    """The table's rows below its head, as words."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return lines[2:]


# -- what there is -------------------------------------------------------------------------


def test_ps(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    ended = ctl("ps")
    assert ended.code == 0
    heading = ended.out.splitlines()[1].split()
    assert heading == ["NAME", "STATE", "HEALTH", "PID", "MEM", "LEASES", "UNTIL", "ENDPOINT"]
    qwen, tiny, bad, reason = rows(ended.out)
    assert qwen[:7] == ["qwen", "ready", "healthy", "4300", "6.0", "GiB", "2"]
    assert qwen[7] == "leased"
    assert tiny[6:] == ["0", "in", "2", "min", "5", "s", "127.0.0.1:8088"]
    assert bad[:3] == ["bad", "failed", "unknown"]
    assert " ".join(reason) == "bad: the model is corrupt"
    assert "cold" in ctl("ps", "-a").out
    keys = [runtime["instance_key"] for runtime in RUNTIMES]
    assert ctl("ps", "-q").out.split() == keys[:3]
    assert json.loads(ctl("ps", "--json").out) == {"runtimes": RUNTIMES}


def test_ps_of_nothing(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    nothing: dict[str, object] = {"runtimes": []}
    daemon.script = when("runtime.list", lambda asked: asked.send(Result(asked.id, nothing)))
    assert ctl("ps").out == "Nothing runs.\n"
    assert ctl("ps", "-a").out == "There are no runtimes.\n"


def test_a_table_in_a_pipe_keeps_its_lines_whole(daemon: ScriptedDaemon) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    ran = subprocess.run(
        [sys.executable, "-m", "inferd_client.ctl", "ps"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ | {"INFERD_SOCKET": str(daemon.path)},
        check=True,
    )
    assert any("qwen" in line and "server.sock" in line for line in ran.stdout.splitlines())


def test_logs(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    ended = ctl("logs", "qwen", "-f", "-n", "7")
    assert (ended.code, ended.out) == (1, "loading\nlistening\n")
    assert ended.err.startswith("(3 lines were missed)\ninferdctl: the daemon ended this")
    assert arguments(daemon, "logs") == {"instance_key": QWEN, "follow": True, "lines": 7}
    assert [json.loads(line) for line in ctl("logs", "qwen", "--json").out.splitlines()] == [
        {"line": "loading"},
        {"missed": 3},
        {"line": "listening"},
    ]


def test_watch(ctl: Ctl) -> None:
    ended = ctl("watch")
    assert (ended.code, ended.err.partition(":")[0]) == (1, "inferdctl")
    assert "the daemon ended this" in ended.err
    lines = ended.out.splitlines()
    assert len(lines) == 5 + len(CHANGES) - 1
    assert lines[5].endswith("  runtime qwen is restarting, pid 4300")
    assert [json.loads(line) for line in ctl("watch", "--json").out.splitlines()] == CHANGES


def test_lease_ls(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    ((ref, runtime, owner, *_),) = rows(ctl("lease", "ls").out)
    assert (ref, runtime, owner) == ("lease-abc", "qwen", "me")
    assert ctl("lease", "ls", "-q").out == "lease-abc\n"
    assert json.loads(ctl("lease", "ls", "--json").out) == {"leases": [LEASE]}
    ctl("lease", "ls", "qwen", "--owner", "me")
    assert arguments(daemon, "lease.list") == {"instance_key": QWEN, "owner_ref": "me"}
    daemon.script = when("lease.list", lambda asked: asked.send(Result(asked.id, {"leases": []})))
    assert ctl("lease", "ls").out == "There are no leases.\n"


# -- stop, restart -------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["stop", "restart"])
@pytest.mark.parametrize("word", ["qwen", "qwen3-8b", "qwen3-8b-0011"])
def test_stop_and_restart(ctl: Ctl, daemon: ScriptedDaemon, verb: str, word: str) -> None:
    assert ctl(verb, word).out == "qwen is ready\n"  # the script's runtime never changes
    assert arguments(daemon, f"runtime.{verb}") == {"instance_key": QWEN, "force": False}
    assert json.loads(ctl(verb, "-f", word, "--json").out)["instance_key"] == QWEN
    assert arguments(daemon, f"runtime.{verb}") == {"instance_key": QWEN, "force": True}


def test_what_is_held_is_not_stopped(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    daemon.script = when("runtime.stop", refuse(ErrorCode.CONFLICT, "qwen is in use"))
    ended = ctl("stop", "qwen")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "inferdctl: qwen is in use (conflict)\n"
    ended = ctl("stop", "nobody")
    assert (ended.code, ended.err[:32]) == (1, "inferdctl: no runtime 'nobody'; ")


# -- leases --------------------------------------------------------------------------------


def test_lease_ensure(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    ended = ctl("lease", "ensure", "qwen3", "--ttl", "10m", "--owner", "o", "--wait-room", "2m")
    assert ended.out == f"lease-abc on {QWEN}, 10 min 0 s left\n"
    assert KEY not in ended.out
    assert arguments(daemon, "lease.ensure") == {
        "target": "qwen3",
        "owner_ref": "o",
        "bind": "none",
        "ttl_ms": 600_000,
        "wait_ms": 120_000,
    }
    whole = json.loads(ctl("lease", "ensure", "qwen3", "--json", "--tcp").out)
    assert whole["endpoint"]["headers"] == ENDPOINT["headers"]
    assert arguments(daemon, "lease.ensure")["transport"] == "tcp"


def test_lease_ensure_plan(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    ended = ctl("lease", "ensure", "qwen3", "--plan")
    assert ended.code == 1
    assert ended.out.splitlines()[-1] == "  qwen  6.0 GiB  held by lease-abc of me"
    assert json.loads(ctl("lease", "ensure", "qwen3", "--plan", "--json").out) == PLAN
    fits = PLAN | {"verdict": "fits"}
    daemon.script = when("lease.ensure", lambda asked: asked.send(Result(asked.id, fits)))
    assert ctl("lease", "ensure", "qwen3", "--plan").code == 0


def test_lease_renew_and_release(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    assert ctl("lease", "renew", REF, "--ttl", "1h").out == "lease-abc: 1 h 0 min left\n"
    assert arguments(daemon, "lease.renew") == {"lease_ref": REF, "ttl_ms": 3_600_000}
    other = REF[:-1] + "_"
    ended = ctl("lease", "release", REF, other, "--json")
    assert json.loads(ended.out) == {"released": [REF, other]}
    assert ops(daemon)[-2:] == ["lease.release", "lease.release"]
    assert ctl("lease", "release", REF).out == ""


@pytest.mark.parametrize("verb", ["renew", "release"])
@pytest.mark.parametrize("ref", [REF[:-1], REF + "x", REF[:-1] + "…", REF.removeprefix("l"), ""])
def test_a_reference_that_is_not_whole_is_refused(
    ctl: Ctl, daemon: ScriptedDaemon, verb: str, ref: str
) -> None:
    """To the daemon, ending what there is not is no error."""
    ended = ctl("lease", verb, *([REF] if verb == "release" else []), ref)
    assert (ended.code, ended.out) == (64, "")
    assert "is not a whole reference" in ended.err
    assert not daemon.asked


@pytest.mark.parametrize(
    "argv",
    [
        ["lease", "ensure", "x", "--ttl", "0"],
        ["lease", "ensure", "x", "--ttl", "25h"],
        ["lease", "renew", REF, "--ttl", "forever"],
        ["lease", "release"],
        ["lease", "sing"],
        ["load", "none.gguf"],
        ["load", "x", "--set", "ctx_size=1"],
        ["load", "x", "--keep", "soon"],
        ["endpoint", "x", "--env", "--json"],
        ["run", "x", "--tool-choice", "auto"],
    ],
)
def test_a_wrong_command_line_asks_nothing(
    ctl: Ctl, daemon: ScriptedDaemon, argv: list[str]
) -> None:
    ended = ctl(*argv)
    assert (ended.code, ended.out) == (64, "")
    assert len(ended.err.splitlines()) == 1
    assert not daemon.asked


# -- load, unload --------------------------------------------------------------------------


def test_load_leaves_it_warm(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    assert ctl("load", "qwen3").out == "qwen is ready, and held by others\n"
    assert ops(daemon)[:2] == ["lease.ensure", "lease.release"]
    told = json.loads(ctl("load", "qwen3", "--json").out)
    assert (told["runtime"]["name"], told["lease"]) == ("qwen", None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"leases": 0}, "qwen is ready, and stays"),
        (
            {"leases": 0, "idle_left_ms": 60_000},
            "qwen is ready; it stops in 1 min 0 s if nobody uses it",
        ),
        (
            {"leases": 0, "state": "stopped"},
            "qwen was ready; its idle_ttl is 0, and nobody uses it, so it is stopped",
        ),
    ],
)
def test_load_tells_how_long(
    ctl: Ctl, daemon: ScriptedDaemon, fields: dict[str, object], words: str
) -> None:
    listed = {"runtimes": [RUNTIMES[0] | fields]}
    daemon.script = when("runtime.list", lambda asked: asked.send(Result(asked.id, listed)))
    assert ctl("load", "qwen3").out == f"{words}\n"


def test_load_and_keep(ctl: Ctl, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.touch()
    ended = ctl("load", str(path), "--keep", "2h", "--set", "ctx_size=512")
    assert ended.out == "qwen is ready; held for 2 h 0 min by lease-abc\n"
    asked = arguments(daemon, "lease.ensure")
    assert asked["target"] == {"model": str(path), "ctx_size": 512}
    assert (asked["ttl_ms"], asked["bind"], asked["owner_ref"]) == (
        7_200_000,
        "none",
        "inferdctl load",
    )
    # The script's one lease was there before, as if from a former load: it is replaced.
    assert ops(daemon)[-3:] == ["lease.release", "runtime.list", "route.list"]


def test_unload(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    ended = ctl("unload", "qwen", "--json")
    assert json.loads(ended.out)["released"] == ["lease-abc"]
    asked = [op for op in ops(daemon) if op in ("lease.release", "runtime.stop")]
    assert asked == ["lease.release", "runtime.stop"]
    assert arguments(daemon, "lease.list") == {
        "owner_ref": "inferdctl load",
        "instance_key": QWEN,
        "uid": os.getuid(),
    }
    daemon.script = when("runtime.stop", refuse(ErrorCode.CONFLICT, "qwen is in use"))
    assert ctl("unload", "qwen").code == 1


def test_unload_by_somebody_who_may_not_stop(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    daemon.script = when("runtime.stop", refuse(ErrorCode.PERMISSION_DENIED, "only root"))
    ended = ctl("unload", "qwen")
    assert (ended.code, ended.out) == (0, "qwen is let go; it stops once it has been idle\n")
    assert ctl("unload", "--force", "qwen").code == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["load", "q", "--keep", "forever"],
        ["endpoint", "q", "--ttl", "-1"],
        ["lease", "ensure", "q", "--ttl", "forever"],
    ],
)
def test_forever_is_as_long_as_the_command(daemon: ScriptedDaemon, argv: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "inferd_client.ctl", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"INFERD_SOCKET": str(daemon.path)},
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "held until Ctrl-C\n"
        assert arguments(daemon, "lease.ensure").get("bind", "connection") == "connection"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "lease-abc" in out
    assert err.strip() == ""
    assert daemon.clean_ends.acquire(timeout=PATIENCE_S)  # all that it said was read
    assert ops(daemon)[-1] == "lease.release"


def test_what_is_held_and_lost_ends_the_command(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    def expire(asked: Asked) -> None:
        fixed = LEASE | {"renewable": False, "left_ms": 100}
        asked.send(Result(asked.id, ENSURED | {"lease": fixed}))

    daemon.script = when("lease.ensure", expire)
    ended = ctl("load", "qwen3", "--keep", "forever")
    assert ended.code == 1
    assert "the lease lease-abc is lost" in ended.err


# -- endpoint ------------------------------------------------------------------------------


def test_endpoint(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    lines = ctl("endpoint", "qwen3").out.splitlines()
    assert lines[:5] == [
        "base URL     http://localhost/v1",
        "Unix socket  /run/inferd/r/qwen/server.sock",
        f"header       Authorization: Bearer {KEY}",
        "model        qwen3-8b",
        "lease        lease-abc, for 1 h 0 min",
    ]
    assert (
        "curl --unix-socket /run/inferd/r/qwen/server.sock http://localhost/v1/models" in lines[5]
    )
    asked = arguments(daemon, "lease.ensure")
    assert (asked["ttl_ms"], asked["bind"]) == (3_600_000, "none")


def test_endpoint_env(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    ended = ctl("endpoint", "qwen3", "--env")
    assert ended.out == f"OPENAI_BASE_URL=http://localhost/v1\nOPENAI_API_KEY={KEY}\n"
    assert "--unix-socket" in ended.err
    tcp = ENDPOINT | {"uds": None, "headers": {}, "base_url": "http://127.0.0.1:8/a b/v1"}
    answer = ENSURED | {"endpoint": tcp}
    daemon.script = when("lease.ensure", lambda asked: asked.send(Result(asked.id, answer)))
    ended = ctl("endpoint", "qwen3", "--env", "--tcp")
    assert ended.err == ""
    assert shlex.split(ended.out) == [
        "OPENAI_BASE_URL=http://127.0.0.1:8/a b/v1",
        "OPENAI_API_KEY=none",
    ]


def test_a_refusal_of_an_endpoint_is_one_line(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    daemon.script = when("lease.ensure", refuse(ErrorCode.INCOMPATIBLE, "a Unix socket only"))
    ended = ctl("endpoint", "qwen3", "--tcp", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "inferdctl: a Unix socket only (incompatible)\n"


# -- rerank, run ---------------------------------------------------------------------------


def test_rerank(ctl: Ctl, daemon: ScriptedDaemon) -> None:
    assert ctl("rerank", "q", "one", "two").out == "1.0000\tone\n0.0000\ttwo\n"
    assert ctl("rerank", "q", "one", "two", "-n", "1", "-m", "demo").out == "1.0000\tone\n"
    whole = json.loads(ctl("rerank", "q", "one", "--json").out)
    assert whole["results"] == [{"index": 0, "score": 1.0}]
    assert "id" not in whole


def test_run_with_tools_and_a_schema(ctl: Ctl, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('[{"name": "weather", "input_schema": {"type": "object"}}]')
    ended = ctl("run", "Rain?", "--tools", str(tools), "--tool-choice", "required")
    assert ended.out == 'weather({"city": "Oslo"})\n'
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    assert ctl("run", "Hi", "--schema", str(schema)).code == 0
    asked = daemon.asked[-1].request
    assert asked.response_format.schema == {"type": "object"}  # type: ignore[union-attr]
