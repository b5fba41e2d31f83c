"""A fake of Claude Code's command line that does what its prompt says. No model, no network.

`write_cli` puts it into a directory as a program; what it prints is in the form that the real one
prints, except where a prompt asks for worse. Run as a script it is that program.
"""

import json
import os
import shlex
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

FLOOD_BYTES = 128 * 1024
"""In the first piece of a flood already: more of it than any client reads by accident."""


def write_cli(directory: Path, *, logged_in: bool = True, name: str = "scripted-claude") -> Path:
    """The program, to be named as `binary`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    state = "in" if logged_in else "out"
    command = shlex.join([sys.executable, "-S", "-E", __file__, state])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    return path


def main(state: str, arguments: list[str]) -> int:
    """Its exit status."""
    if arguments == ["--version"]:
        print("2.1.197 (Claude Code)")
        return 0
    if arguments == ["auth", "status"]:
        print(json.dumps({"loggedIn": state == "in", "authMethod": "none"}))
        return 0 if state == "in" else 1
    prompt = sys.stdin.read().strip()
    told = arguments[arguments.index("--model") + 1] if "--model" in arguments else "its own"
    emit(type="system", subtype="init", tools=[], model=told)
    emit_event(type="message_start", message={"usage": {"input_tokens": 11}})
    word, _, rest = prompt.partition(" ")
    return SCRIPTS.get(word, say)(rest or prompt)


def say(text: str) -> int:
    """The text, word by word."""
    for piece in text.split(" "):
        delta(piece + " ")
    return end()


def garbage(_: str) -> int:
    """No JSON at all, and success by its exit code."""
    os.write(1, bytes(range(256)) * 40 + b"\n{]\nnull\n")
    return 0


def half(_: str) -> int:
    """It stops in the middle of a line."""
    delta("half")
    os.write(1, b'{"type":"result","subtype":"succ')
    return 0


def never(_: str) -> int:
    """Silence."""
    delta("begun")
    while True:
        time.sleep(60)


def drip(_: str) -> int:
    """A word every 10 ms, without end."""
    while True:
        delta("drip ")
        time.sleep(0.01)


def flood(_: str) -> int:
    """Much at a time, as fast as it is taken, without end."""
    while True:
        delta("x" * FLOOD_BYTES)


def late(told: str) -> int:
    """Told FILE PATH: once there is the file it asks PATH of its upstream, and once more where
    that fails, as some do."""
    file, _, path = told.partition(" ")
    delta("begun")
    while not os.path.exists(file):
        time.sleep(0.01)
    ask_upstream(path, [])
    status, body = ask_upstream(path, [])
    emit(
        type="result", subtype="success", is_error=True, api_error_status=status, result=body[:200]
    )
    return 1


def long(size: str) -> int:
    """So many bytes."""
    for _ in range(int(size) // 1024):
        delta("x" * 1024)
    return end()


def fork(_: str) -> int:
    """It leaves a daemon in a session of its own, which holds its stdout, and ends."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                time.sleep(60)
        os._exit(0)
    delta("forked")
    return end()


def failed(status: str) -> int:
    """Its upstream answered with an error."""
    emit(
        type="result",
        subtype="success",
        is_error=True,
        api_error_status=int(status),
        result=f"API Error: {status}",
    )
    return 1


def surroundings(_: str) -> int:
    """What it can see."""
    seen = {
        "argv": sys.argv[2:],
        "cwd": os.getcwd(),
        "files": os.listdir(),
        "environment": sorted(os.environ),
    }
    delta(json.dumps(seen))
    return end()


def upstream(path: str) -> int:
    """What a request to `path` of its upstream is answered, as status and body."""
    status, body = ask_upstream(path, [])
    seen = {
        "status": status,
        "body": body,
        "url": os.environ["ANTHROPIC_BASE_URL"],
        "key": os.environ["ANTHROPIC_AUTH_TOKEN"],
    }
    delta(json.dumps(seen))
    return end()


def canned(path: str) -> int:
    """Its upstream refuses what it asks, and it makes words of its own of that."""
    status, _ = ask_upstream(path, [{"role": "user", "content": "word " * 40_000}])
    assert status >= 400
    emit(
        type="result", subtype="success", is_error=True, api_error_status=529, result="High demand"
    )
    return 1


def ask_upstream(path: str, messages: object) -> tuple[int, str]:
    """The answer's status and body."""
    model = sys.argv[sys.argv.index("--model") + 1]
    request = urllib.request.Request(
        os.environ["ANTHROPIC_BASE_URL"] + path,
        data=json.dumps({"model": model, "messages": messages}).encode(),
        headers={"Authorization": "Bearer " + os.environ["ANTHROPIC_AUTH_TOKEN"]},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def escape(pid_file: str) -> int:
    """It leaves a process in a session of its own, with nothing in its environment."""
    let_escape(pid_file)
    return end()


def linger(pid_file: str) -> int:
    """The same, and then silence."""
    let_escape(pid_file)
    while True:
        time.sleep(60)


def let_escape(pid_file: str) -> None:
    """Its pid is noted in the file before a word is said."""
    started = f"env -i setsid sleep 60 >/dev/null 2>&1 & echo $! > {shlex.quote(pid_file)}"
    os.system(started)
    comm = Path("/proc", Path(pid_file).read_text().strip(), "comm")
    while comm.read_text() != "sleep\n":
        time.sleep(0.01)
    delta("escaped")


def delta(text: str) -> None:
    """One piece of the answer."""
    emit_event(type="content_block_delta", delta={"type": "text_delta", "text": text})


def end() -> int:
    """All is well."""
    usage = {"input_tokens": 11, "output_tokens": 5}
    emit_event(type="message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
    emit(
        type="result",
        subtype="success",
        is_error=False,
        stop_reason="end_turn",
        usage=usage,
        result="",
    )
    return 0


def emit_event(**event: object) -> None:
    """One event of the upstream, passed on."""
    emit(type="stream_event", event=event)


def emit(**line: object) -> None:
    """One line, all of it: a signal may cut a long write short."""
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


SCRIPTS = {
    script.__name__: script
    for script in (
        *(say, garbage, half, never, drip, long, fork, failed, surroundings, upstream, canned),
        *(escape, linger, flood, late),
    )
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
