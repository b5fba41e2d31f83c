"""Tells many sockets' readers when there is something to read, with one wait for all of them.

Each socket is registered once, edge-triggered, in an epoll of the hub's own. No task is owned here:
one of those who wait leads, for all; when it has what it waited for another one does. It must never
leave a waiter without a leader.
"""

import select
from math import inf

import trio

_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

SHARE_S = 0.000_5
"""What each waking is allowed of the loop's time, some ten times what it takes. With more wakings
than that the hub rests, so that of streams that are quick or many each has several tokens to be
read; an engine on the same machine needs the processor more than the first of them does."""
REST_S = (0.001, 0.002)
"""From shortest to longest: timers know nothing shorter, and a longer one would be noticed."""
EAGER_S = 0.005
"""After a request is sent. An answer that comes later than that can be a rest later still."""


class Watched:
    """One socket at a hub; made by `ReadinessHub.add`.

    Whoever reads clears `readable` when it has read all that there was. After `ended` there is
    always something to read, if only the end. Until `eager_until` the hub does not rest while it
    waits.
    """

    __slots__ = ("closed", "deadline", "eager_until", "ended", "fd", "readable", "task")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.readable = False
        self.ended = False
        self.closed = False
        self.eager_until = -inf
        self.deadline = inf
        self.task: trio.lowlevel.Task | None = None


class ReadinessHub:
    """The sockets of one transport. Its descriptor is open while it has any."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._sockets: dict[int, Watched] = {}
        self._waiting: dict[Watched, None] = {}
        self._leader: Watched | None = None
        self._scope: trio.CancelScope | None = None
        self._look_at = 0.0
        self._rest: trio.CancelScope | None = None

    def add(self, fd: int) -> Watched:
        """Watch `fd` until `remove`. Raises OSError where there is no descriptor or memory left."""
        if self._epoll is None:
            self._epoll = select.epoll()
        watched = Watched(fd)
        try:
            self._epoll.register(fd, _EVENTS)
            self._sockets[fd] = watched
        finally:
            self._close_if_unused()
        return watched

    def remove(self, watched: Watched) -> None:
        """Before its descriptor is closed; who waits gets trio.ClosedResourceError."""
        if watched.closed:
            return
        watched.closed = True
        del self._sockets[watched.fd]
        if self._epoll is not None:
            self._epoll.unregister(watched.fd)
        if watched is self._leader:
            if self._scope is not None:
                self._scope.cancel()
        elif watched in self._waiting:
            self._wake(watched)
        self._close_if_unused()

    async def wait(self, watched: Watched, deadline: float = inf) -> bool:
        """Until it is readable; False where `deadline` came first. Always lets others run.

        Raises trio.ClosedResourceError.
        """
        if watched.readable:
            await trio.lowlevel.checkpoint()
            return True
        watched.deadline = deadline
        if self._leader is None:
            self._leader = watched
            return await self._lead(watched)
        watched.task = trio.lowlevel.current_task()
        self._waiting[watched] = None
        if self._scope is not None and deadline < self._scope.deadline:
            self._scope.deadline = deadline
        if self._rest is not None and watched.eager_until > trio.current_time():
            self._rest.cancel()

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._waiting[watched]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if self._leader is watched:
            return await self._lead(watched)
        if watched.closed:
            raise _closed()
        return watched.readable

    async def _lead(self, watched: Watched) -> bool:
        """Wait for all, until `watched` has what it waits for."""
        try:
            while True:
                deadline = min((each.deadline for each in self._waiting), default=inf)
                deadline = min(deadline, watched.deadline)
                with trio.CancelScope(deadline=deadline) as self._scope:
                    while not (watched.readable or watched.closed):
                        assert self._epoll is not None
                        if not await self._rested(watched) or not self._look(self._epoll):
                            await trio.lowlevel.wait_readable(self._epoll)
                            self._look(self._epoll)
                if watched.closed:
                    raise _closed()
                if watched.readable:
                    return True
                now = trio.current_time()
                for each in [each for each in self._waiting if each.deadline <= now]:
                    self._wake(each)
                if watched.deadline <= now:
                    return False
        finally:
            self._leader = self._scope = None
            if self._waiting:
                # The one that came last has, of streams alike, the longest to wait.
                self._leader = next(reversed(self._waiting))
                self._wake(self._leader)
            self._close_if_unused()

    async def _rested(self, leader: Watched) -> bool:
        """Rest, where it is due and nobody is eager; False where it was not."""
        now = trio.current_time()
        if self._look_at - now < REST_S[0]:
            return False
        if max((each.eager_until for each in self._waiting), default=-inf) > now:
            return False
        if leader.eager_until > now:
            return False
        try:
            with trio.CancelScope(deadline=self._look_at) as self._rest:
                await trio.sleep_forever()
        finally:
            self._rest = None
        return True

    def _look(self, epoll: select.epoll) -> bool:
        """Wake who has something to read; False where nobody has."""
        found = epoll.poll(0)
        now = trio.current_time()
        due = max(self._look_at, now)
        for fd, events in found:
            watched = self._sockets[fd]
            watched.readable = True
            if watched.eager_until <= now:
                due += SHARE_S
            if events & _ENDS:
                watched.ended = True
            if watched in self._waiting:
                self._wake(watched)
        self._look_at = min(due, now + REST_S[1])
        return bool(found)

    def _wake(self, watched: Watched) -> None:
        """It sees by itself why."""
        del self._waiting[watched]
        assert watched.task is not None
        trio.lowlevel.reschedule(watched.task)

    def _close_if_unused(self) -> None:
        if self._epoll is not None and not self._sockets and self._leader is None:
            trio.lowlevel.notify_closing(self._epoll)
            self._epoll.close()
            self._epoll = None


def _closed() -> trio.ClosedResourceError:
    return trio.ClosedResourceError("another task closed this socket")
