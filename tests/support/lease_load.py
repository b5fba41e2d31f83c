"""Load on a daemon that is being killed: owners of leases, and streams through it and past it.

Each is a thread of its own that connects again whenever its connection ends, and complains of
whatever a daemon in order cannot have told it.
"""

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.lease_client import Json, Refused, ask
from tests.support.lease_ledger import MARGIN_S, Held, LeaseLedger, Span
from tests.support.wire_client import WireClient, connected

HANGS_S = 40.0
"""Longer than any wait that is in order: a runtime's kill and start on a busy machine."""
PAUSE_S = 0.04
OPEN_LEASES = 4
"""Of one owner at a time."""
EXCUSED = {"backend_unavailable", "timeout"}
"""What may be said of a runtime that somebody has just killed."""


class Complaints:
    """What went wrong, and how often what else happened. Thread-safe."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, what: str) -> None:
        """One more of it."""
        with self._lock:
            self.counts[what] += 1

    def complain(self, text: str) -> None:
        """Something that must not be."""
        with self._lock:
            self.wrong.append(text)


class Worker(threading.Thread):
    """A client that comes back until `end`, and rests from `pause` to `resume`."""

    def __init__(self, name: str, path: Path, seed: int, complaints: Complaints) -> None:
        super().__init__(name=name, daemon=True)
        self.path = path
        self.chance = random.Random(f"{seed}/{name}")
        self.complaints = complaints
        self._go, self._resting, self._over = (threading.Event() for _ in range(3))
        self._go.set()

    def pause(self) -> None:
        """Let it finish what it is about."""
        self._go.clear()
        if not self._resting.wait(2 * HANGS_S):
            self.complaints.complain(f"{self.name} hangs")

    def resume(self) -> None:
        """Let it go on."""
        self._resting.clear()
        self._go.set()

    def end(self) -> None:
        """Let it finish for good."""
        self._over.set()
        self._go.set()
        self.join(2 * HANGS_S)
        if self.is_alive():
            self.complaints.complain(f"{self.name} does not end")

    def run(self) -> None:
        """Live on through the daemon's lives."""
        while self.going():
            try:
                self.live()
            except TimeoutError:
                self.complaints.complain(f"{self.name} waited {HANGS_S:g} s in vain")
            except (OSError, EOFError, HTTPException):
                self.complaints.count("connections cut")

    def live(self) -> None:
        """Work until the connection breaks: raises OSError, EOFError or HTTPException then."""
        raise NotImplementedError

    def going(self) -> bool:
        """A moment's rest between two steps, a long one while it is paused; False at the end."""
        time.sleep(self.chance.uniform(0, 2 * PAUSE_S))
        if not self._go.is_set():
            self._resting.set()
            self._go.wait()
        return not self._over.is_set()


class Owner(Worker):
    """Takes, renews and gives back leases, at random, and sometimes just goes."""

    def __init__(
        self,
        name: str,
        path: Path,
        seed: int,
        complaints: Complaints,
        ledger: LeaseLedger,
        targets: list[Json | str],
    ) -> None:
        super().__init__(name, path, seed, complaints)
        self._ledger = ledger
        self._targets = targets
        self._asked = 0
        self._mine: list[Held] = []

    def live(self) -> None:
        """Any number of steps, then maybe the end of the connection and of what is bound to it."""
        life = self._ledger.life
        with connected(self.path, HANGS_S) as client:
            self._come_back(client)
            while self.going() and self.chance.random() > 0.03:
                self._mine = [held for held in self._mine if held.left_s() > 0]
                self.chance.choice((self._ensure, self._renew, self._release))(client)
            # Where the daemon's death cut the connection, its leases live on.
            for held in [held for held in self._mine if held.bound]:
                self._mine.remove(held)
                self._ledger.left(held.ref, life)
            self.complaints.count("owners gone")

    def _come_back(self, client: WireClient) -> None:
        """What was bound to the connection that broke becomes bound to this one."""
        for held in [held for held in self._mine if held.bound]:
            self._renew_one(client, held)

    def _ensure(self, client: WireClient) -> None:
        if len(self._mine) >= OPEN_LEASES:
            return
        self._asked += 1
        owner = f"{self.name}-{self._asked}"
        bound = self.chance.random() < 0.5
        ttl_ms = self.chance.choice((1_000, 3_000, 60_000, 120_000))
        fields = {"owner_ref": owner, "ttl_ms": ttl_ms, "bind": "connection" if bound else "none"}
        self._ledger.asking(owner)
        asked_at = time.monotonic()
        try:
            told = ask(client, "lease.ensure", target=self.chance.choice(self._targets), **fields)
        except Refused as error:
            self._ledger.refused(owner)
            self._excuse("lease.ensure", error)
            return
        lease = told["lease"]
        ends = _ends(asked_at, lease["left_ms"])
        held = Held(lease["lease_ref"], told["endpoint"], lease["instance_key"], owner, bound, ends)
        self._ledger.granted(held)
        self._mine.append(held)
        self.complaints.count("leases granted")

    def _renew(self, client: WireClient) -> None:
        if self._mine:
            self._renew_one(client, self.chance.choice(self._mine))

    def _renew_one(self, client: WireClient, held: Held) -> None:
        # Until it is answered, nobody can tell which of its two times holds.
        ends, held.ends = held.ends, None
        asked_at = time.monotonic()
        ttl_ms = self.chance.choice((3_000, 60_000, 120_000))
        try:
            told = ask(client, "lease.renew", lease_ref=held.ref, ttl_ms=ttl_ms)
        except Refused as error:
            held.ends = ends
            if error.code == "not_found" and held.left_s() < MARGIN_S:
                self._drop(held)
            else:
                self._excuse("lease.renew", error)
            return
        except (OSError, EOFError):
            self._drop(held)
            raise
        held.ends = _ends(asked_at, told["left_ms"])
        self.complaints.count("leases renewed")

    def _release(self, client: WireClient) -> None:
        if not self._mine:
            return
        held = self.chance.choice(self._mine)
        self._drop(held)
        for _ in range(self.chance.choice((1, 2))):
            try:
                ask(client, "lease.release", lease_ref=held.ref)
            except Refused as error:
                self._excuse("lease.release", error)
                return
        self._ledger.over(held.ref)
        self.complaints.count("leases released")

    def _drop(self, held: Held) -> None:
        self._mine.remove(held)
        self._ledger.doubtful(held.ref)

    def _excuse(self, op: str, error: Refused) -> None:
        self.complaints.count(f"{op}: {error.code}")
        if error.code not in EXCUSED:
            self.complaints.complain(f"{op} answered {error.code}: {error.message}")


def _ends(asked_at: float, left_ms: float) -> Span:
    left_s = left_ms / 1000
    return Span(asked_at + left_s, time.monotonic() + left_s)


class RouteStreams(Worker):
    """One generation after another through the daemon; some are cancelled."""

    def __init__(
        self, name: str, path: Path, seed: int, complaints: Complaints, model: str
    ) -> None:
        super().__init__(name, path, seed, complaints)
        self._model = model
        self._asked = 0

    def live(self) -> None:
        """Each request has one end, and nothing after it."""
        with connected(self.path, HANGS_S) as client:
            while self.going():
                self._asked += 1
                request_id = f"r{self._asked}"
                client.generate(
                    request_id, model=self._model, max_tokens=self.chance.randint(1, 600)
                )
                if self.chance.random() < 0.2:
                    client.say(op="cancel", id=request_id)
                end = client.hear_end(request_id)
                self._judge(end)
                client.say(id="after", op="status")
                if (after := client.hear())["id"] != "after":
                    self.complaints.complain(f"{self.name} heard {after} after {end}")

    def _judge(self, end: Json) -> None:
        what = end.get("code") or end.get("stop_reason")
        self.complaints.count(f"requests ended: {what}")
        if end["type"] == "error" and what not in EXCUSED:
            self.complaints.complain(f"{self.name} ended with {end}")


class EndpointStreams(Worker):
    """One stream after another straight from whatever endpoint is leased."""

    def __init__(
        self,
        name: str,
        path: Path,
        seed: int,
        complaints: Complaints,
        leased: Callable[[], list[Held]],
    ) -> None:
        super().__init__(name, path, seed, complaints)
        self._leased = leased

    def live(self) -> None:
        """Read to the end, or leave in the middle."""
        held = self._leased()
        if not held:
            return
        endpoint = self.chance.choice(held).endpoint
        url = urlsplit(endpoint["base_url"])
        with closing(HTTPConnection(url.hostname or "", url.port, timeout=HANGS_S)) as connection:
            if endpoint["uds"]:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(HANGS_S)
                connection.sock.connect(endpoint["uds"])
            asked = {
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": self.chance.randint(1, 600),
                "stream": True,
            }
            headers = {"Content-Type": "application/json", **endpoint["headers"]}
            connection.request("POST", f"{url.path}/chat/completions", json.dumps(asked), headers)
            response = connection.getresponse()
            if response.status == 401:
                self.complaints.complain(f"{self.name}: the key of {endpoint} holds no more")
            leave = self.chance.random() < 0.2
            while response.readline() and not leave:
                pass
        self.complaints.count(f"straight streams: {response.status}")
