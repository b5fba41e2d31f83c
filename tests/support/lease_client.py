"""A daemon with leases, as its clients see it: control operations, endpoints, restarts."""

import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from inferd_daemon.models.demo import demo_model_path
from tests.support.daemon import RunningDaemon, environment, patience, running_daemon
from tests.support.wire_client import WireClient, connected

Json = dict[str, Any]
T = TypeVar("T")

MODEL = str(demo_model_path())
ENDLESS_ROUTE = """
[backends.endless]
kind = "llama_server"
model = "{model}"
threads = 1
parallel = 1
idle_ttl = "{idle_ttl}"
[routes.endless]
backends = ["endless"]
"""


class Refused(Exception):
    """The error frame of a control operation."""

    def __init__(self, answer: Json) -> None:
        super().__init__(answer)
        self.code: str = answer["code"]
        self.message: str = answer["message"]
        self.details: Json = answer.get("details", {})


def boot(**fields: Any) -> Json:  # noqa: ANN401 (fields of a boot spec)
    """A boot spec of the demo model; other `ctx_size`s are other runtimes."""
    return {"model": MODEL, "threads": 1, "ctx_size": 512, "parallel": 1, **fields}


def counted(client: WireClient, metric: str) -> dict[tuple[str, ...], int]:
    """The samples of one metric by the values of their labels."""
    (family,) = (one for one in ask(client, "metrics")["metrics"] if one["name"] == metric)
    return {tuple(one["labels"].values()): one["value"] for one in family["samples"]}


def ask(client: WireClient, op: str, **fields: object) -> Any:  # noqa: ANN401 (JSON)
    """The value of a control operation. Raises Refused."""
    client.say(id="c", op=op, **fields)
    answer = client.hear()
    if answer["type"] == "error":
        raise Refused(answer)
    return answer["value"]


def ensure(client: WireClient, target: object, **fields: object) -> Json:
    """`{lease, endpoint, compatibility}`."""
    value: Json = ask(client, "lease.ensure", target=target, **fields)
    return value


def runtimes(client: WireClient) -> list[Json]:
    """What `runtime.list` shows."""
    listed: list[Json] = ask(client, "runtime.list")["runtimes"]
    return listed


def leases(client: WireClient, **filters: object) -> list[str]:
    """The references that `lease.list` shows."""
    return [lease["lease_ref"] for lease in ask(client, "lease.list", **filters)["leases"]]


def wait_runtime(client: WireClient, key: str, state: str, within_s: float = 5.0) -> Json:
    """The runtime once it is in `state`."""
    deadline = time.monotonic() + patience(within_s)
    while True:
        runtime: Json = ask(client, "runtime.get", instance_key=key)
        if runtime["state"] == state:
            return runtime
        assert time.monotonic() < deadline, f"{key} is {runtime['state']}, not {state}"
        time.sleep(0.01)


class Reply(NamedTuple):
    """What an endpoint answered."""

    status: int
    body: Json


def complete(endpoint: Json, *, key: bool = True, timeout_s: float = 30, **body: object) -> Reply:
    """One completion straight at an endpoint. Raises OSError, http.client.HTTPException."""
    url = urlsplit(endpoint["base_url"])
    connection = HTTPConnection(url.hostname or "", url.port, timeout=timeout_s)
    with closing(connection):
        if endpoint["uds"]:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(timeout_s)
            connection.sock.connect(endpoint["uds"])
        asked = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **body}
        headers = {"Content-Type": "application/json", **(endpoint["headers"] if key else {})}
        connection.request("POST", f"{url.path}/chat/completions", json.dumps(asked), headers)
        response = connection.getresponse()
        return Reply(response.status, json.loads(response.read()))


def completes_again(endpoint: Json, within_s: float = 5.0) -> None:
    """The endpoint answers, at once or after a restart."""
    deadline = time.monotonic() + patience(within_s)
    while True:
        try:
            if complete(endpoint, timeout_s=10).status == 200:
                return
        except (OSError, HTTPException):
            pass
        assert time.monotonic() < deadline, "the endpoint does not answer again"
        time.sleep(0.01)


@contextmanager
def leasing_daemon(
    config: str = "", *, server: str | Path | None = None
) -> Iterator[RunningDaemon]:
    """A daemon that starts `server`, the real one where None, and nothing by itself."""
    with running_daemon(config=config, environ=server_environment(server)) as daemon:
        yield daemon


def server_environment(server: str | Path | None) -> dict[str, str]:
    """What has the daemon start `server`; "" is the bundled one."""
    if server == "":
        return {"PATH": "/usr/bin:/bin"}
    return {"INFERD_LLAMA_SERVER": str(server)}


def start_again(daemon: RunningDaemon, server: str | Path) -> None:
    """Another daemon in the place of one that ended; returns when it listens."""
    launch_again(daemon, server)
    deadline = time.monotonic() + 30
    while True:
        try:
            with connected(daemon.socket):
                return
        except OSError:
            assert daemon.process.poll() is None, daemon.log
            assert time.monotonic() < deadline, daemon.log
            time.sleep(0.005)


def launch_again(daemon: RunningDaemon, server: str | Path) -> None:
    """Another daemon in the place of one that ended; returns at once."""
    socket, config = str(daemon.socket), str(daemon.directory / "config.toml")
    with daemon.log_path.open("ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-m", "inferd_daemon", "--socket", socket, "--config", config],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(daemon.directory, server_environment(server)),
            cwd=daemon.directory,
            start_new_session=True,
        )


def as_user(uid: int, gid: int, work: Callable[[], T]) -> T:
    """What `work` returns when a process of another user does it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            os.write(writing, pickle.dumps(work()))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0
    result: T = pickle.loads(told)
    return result
