"""One crash of an engine breaks all that it worked on, and is one failure: it is asked again."""

import os
import signal

from tests.support.daemon import running_daemon, wait_until
from tests.support.wire_client import WireClient, connected


def in_flight(client: WireClient) -> int:
    client.say(id="routes", op="route.list")
    (route,) = client.hear_end("routes")["value"]["routes"]
    count: int = route["backends"][0]["in_flight"]
    return count


def test_a_crash_under_many_requests_does_not_close_the_backend() -> None:
    with running_daemon("--demo") as daemon, connected(daemon.socket) as client:
        client.generate(max_tokens=4)
        assert client.hear_end()["type"] != "error"
        (worker,) = (pid for pid in daemon.processes() if pid != daemon.pid)
        os.kill(worker, signal.SIGSTOP)
        for number in range(4):
            client.generate(f"r{number}", max_tokens=4)
        wait_until(lambda: in_flight(client) == 4, 5, "four requests at the engine")
        os.kill(worker, signal.SIGKILL)
        codes = [client.hear()["code"] for _ in range(4)]
        assert codes == ["backend_unavailable"] * 4
        client.generate("next", max_tokens=4)
        assert client.hear_end("next")["stop_reason"] == "max_tokens"
