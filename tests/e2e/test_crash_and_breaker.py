"""One crash of an engine breaks all that it worked on, and is one failure: it is asked again."""

import os
import signal
from pathlib import Path
from typing import Any

from tests.support.daemon import running_daemon, wait_until
from tests.support.wire_client import Answer, WireClient, connected


def backend(client: WireClient) -> dict[str, Any]:
    client.say(id="routes", op="route.list")
    (route,) = client.hear_end("routes")["value"]["routes"]
    (only,) = route["backends"]
    found: dict[str, Any] = only
    return found


def has_stopped(pid: int) -> bool:
    """Each of its threads stands still."""
    stats = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat"))
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_a_crash_under_many_requests_does_not_close_the_backend() -> None:
    with running_daemon("--demo") as daemon, connected(daemon.socket, 90) as client:
        daemon.wait_for("runtime ready", 15)
        client.generate(max_tokens=4)
        assert client.hear_end()["type"] != "error"
        (worker,) = (pid for pid in daemon.processes() if pid != daemon.pid)
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: has_stopped(worker), 5, "a worker that stands still")
        for number in range(4):
            client.generate(f"r{number}", max_tokens=4)
        wait_until(lambda: backend(client)["in_flight"] == 4, 5, "four requests at the engine")
        for _ in range(20):  # the last one connects and sends in turns of the loop as well
            backend(client)
        os.kill(worker, signal.SIGKILL)
        ends: list[Answer] = []
        while len(ends) < 4:
            answer = client.hear()
            if answer["type"] in ("error", "done"):
                ends.append(answer)
        failed = [end["code"] for end in ends if end["type"] == "error"]
        # the one on the connection that had been used is sent again, maybe to the next process
        assert len(failed) >= 3
        assert set(failed) == {"backend_unavailable"}
        assert backend(client)["breaker"]["state"] == "closed"
        # it may take longer to start than a request has patience for
        wait_until(lambda: backend(client)["ready"], 5, "the next process")
        client.generate("next", max_tokens=4)
        assert client.hear_end("next")["stop_reason"] == "max_tokens"
