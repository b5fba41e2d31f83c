"""Waits for a permit on behalf of a request, as `admission` decides.

Tells those who asked for it where they stand, when that has changed and not more often than they
can use. Never decides who is next.
"""

from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType

import trio

from inferd_proto import ErrorCode, JsonObject

from ..errors import RequestError
from .admission import ANYWHERE, Admission, Entry, Full, Most, Place, Verdict
from .places import Places
from .ring import Lane, Ticket
from .shares import PeerKey

OnQueued = Callable[[Place], Awaitable[None]]
OnAdmitted = Callable[[], None]

ANNOUNCE_INTERVAL_S = 0.25
"""Between two announcements of places: four a second is as fast as people read."""
NOWHERE = Place(0, None)
_WHOSE = {
    "route": "route {route} is full",
    "uid": "this user's share of route {route} is full",
    "client": "this client's share of route {route} is full",
}
_AT_ONCE = {
    "route": "{number} at once",
    "uid": "{number} of this user at once",
    "client": "{number} of this client at once",
}


class Gate:
    """The door of one route. `run` announces places; without it each is told once.

    Behind it requests go by their lanes. Who makes room there, or sees that there is some again,
    calls `let_one_in` or `let_in`.
    """

    def __init__(self, route: str, admission: Admission, max_wait_ms: int | None = None) -> None:
        self._route = route
        self._admission = admission
        self._max_wait_s = max_wait_ms / 1000 if max_wait_ms is not None else float("inf")
        self._places = Places(admission)
        self._listeners: set[Permit] = set()
        self._changed = trio.Event()
        self._came = trio.Event()

    @property
    def admission(self) -> Admission:
        """Counts, for `route.list`."""
        return self._admission

    @property
    def max_wait_s(self) -> float:
        """The longest wait; infinite where none is set."""
        return self._max_wait_s

    def admitted(
        self,
        peer: PeerKey,
        on_queued: OnQueued | None = None,
        on_admitted: OnAdmitted = lambda: None,
        lane: Lane = ANYWHERE,
    ) -> "Permit":
        """A context manager that holds a permit for the block."""
        return Permit(self, peer, on_queued, on_admitted, lane)

    async def somebody_waiting(self) -> None:
        """Wait until somebody does."""
        while not self._admission.waiting:
            await self._came.wait()
            self._came = trio.Event()

    def let_in(self) -> None:
        """Everybody whose turn it is, as far as there is room."""
        while self.let_one_in():
            pass

    def let_one_in(self) -> bool:
        """The one whose turn it is; False where there is none, or no room."""
        if not self._admission.waiting:
            return False
        tickets = self._admission.admit(trio.current_time(), 1)
        self._admit(tickets)
        return bool(tickets)

    def take_back(self, permit: "Permit") -> None:
        """The permit of one that ran; `let_in` is due when its room is free as well."""
        self._admission.release(permit, trio.current_time(), 0)

    def hand_on(self, permit: "Permit") -> None:
        """The permit of one that did not run after all."""
        self._admission.hand_on(permit, trio.current_time(), 0)
        self.let_in()

    async def run(self) -> None:
        """Announce places as they change, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            self._announce()
            await trio.sleep(ANNOUNCE_INTERVAL_S)

    def _announce(self) -> None:
        if not self._listeners:
            return
        places = self._places.count(trio.current_time())
        for permit in self._listeners:
            place = places.get(permit)
            if place is not None:
                permit.move(place)

    def _enter(self, permit: "Permit") -> Verdict:
        now = trio.current_time()
        verdict = self._admission.request(permit, permit.peer, now, permit.lane)
        if verdict is Entry.ADMITTED:
            permit.on_admitted()
        else:
            self._came.set()
            self._queue_changed()
        return verdict

    def _listen(self, permit: "Permit") -> Place:
        self._listeners.add(permit)
        return self._places.find(permit, trio.current_time())

    def _release(self, permit: "Permit") -> None:
        self.take_back(permit)
        self.let_in()

    def _leave(self, permit: "Permit") -> None:
        """Its turn may have come in the same instant: then it is handed on."""
        if permit.is_admitted:
            self.hand_on(permit)
        else:
            self._admission.withdraw(permit)
            self._queue_changed()

    def _admit(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            assert isinstance(ticket, Permit)
            ticket.admit()
            self._queue_changed()

    def _queue_changed(self) -> None:
        if self._listeners:
            self._changed.set()

    def _is_full(self, full: Full) -> RequestError:
        what = _WHOSE[full.whose].format(route=self._route)
        place = full.place
        return RequestError(
            ErrorCode.QUEUE_FULL,
            f"{what} ({full.waiting} waiting, {_at_once(full.most)});"
            f" position {place.position} would be next{_in_about(place)}",
            details=_details(place),
        )

    def _waited_too_long(self, permit: "Permit") -> RequestError:
        place = self._places.find(permit, trio.current_time())
        most = self._admission.most(permit)
        bound = "" if most.whose == "route" else f" ({_at_once(most)})"
        return RequestError(
            ErrorCode.TIMEOUT,
            f"waited {self._max_wait_s:g} s for route {self._route}{bound} and stood at position"
            f" {place.position}{_in_about(place)}",
            details=_details(place),
        )


class Permit:
    """Leave to run, for the block: `async with gate.admitted(…)`.

    `on_queued` is told if the request has to wait, and when its position has changed;
    `on_admitted` is called in the instant of the admission, wherever the request waits. Raises
    RequestError: `queue_full` at once where there is no place, `timeout` after the longest wait.
    A cancelled wait leaves no trace. Without a wait nothing else runs before the block.
    """

    __slots__ = (
        "_gate",
        "_on_queued",
        "_place",
        "_woken",
        "is_admitted",
        "lane",
        "on_admitted",
        "peer",
        "waited",
    )

    def __init__(
        self,
        gate: Gate,
        peer: PeerKey,
        on_queued: OnQueued | None,
        on_admitted: OnAdmitted,
        lane: Lane,
    ) -> None:
        self._gate = gate
        self._on_queued = on_queued
        self._place = NOWHERE
        self.on_admitted = on_admitted
        self.peer = peer
        self.lane = lane
        self.waited = False
        self.is_admitted = False

    async def __aenter__(self) -> "Permit":
        verdict = self._gate._enter(self)
        if verdict is Entry.ADMITTED:
            return self
        if isinstance(verdict, Full):
            raise self._gate._is_full(verdict)
        self.waited = True
        await self._wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._gate._release(self)

    def admit(self) -> None:
        """Its turn has come."""
        self.is_admitted = True
        self.on_admitted()
        self._woken.set()

    def move(self, place: Place) -> None:
        """It stands at `place` now."""
        if place.position != self._place.position:
            self._place = place
            self._woken.set()

    async def _wait(self) -> None:
        gate = self._gate
        self._woken = trio.Event()
        stays = False
        try:
            with trio.move_on_after(gate.max_wait_s):
                if self._on_queued is None:
                    await self._woken.wait()
                else:
                    await self._tell_places(self._on_queued)
            if not self.is_admitted:
                raise gate._waited_too_long(self)
            stays = True
        finally:
            gate._listeners.discard(self)
            if not stays:
                gate._leave(self)

    async def _tell_places(self, on_queued: OnQueued) -> None:
        self._place = self._gate._listen(self)
        told = NOWHERE.position
        while not self.is_admitted:
            if self._place.position != told:
                told = self._place.position
                await on_queued(self._place)
                continue
            await self._woken.wait()
            self._woken = trio.Event()


def _at_once(most: Most) -> str:
    return _AT_ONCE[most.whose].format(number=most.at_once)


def _in_about(place: Place) -> str:
    return "" if place.estimate_ms is None else f", in about {place.estimate_ms} ms"


def _details(place: Place) -> JsonObject:
    return {"position": place.position, "estimate_ms": place.estimate_ms}
