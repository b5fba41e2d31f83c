"""Tells many sockets' readers when there is something to read, with one wait for all of them.

Each socket is registered, edge-triggered, in an epoll of the hub's own. No task is owned here: one
of those who wait leads, for all; when it has what it waited for another one does. It must never
leave a waiter without a leader.
"""

import select
from contextlib import suppress
from math import inf

import trio

_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

SHARE_S = 0.000_03
"""What each waking is allowed of the loop's time, about what it takes. With more wakings than that
the hub rests, so that of many streams each has several tokens to be read."""
TRICKLE_SHARE_S = 0.000_5
"""The same where little is read at once: an engine on the same machine needs the processor more
than the first of those tokens does."""
TRICKLE_BYTES = 2_048
"""Some ten tokens."""
REST_S = (0.001, 0.003)
"""From shortest to longest: timers know nothing shorter, and a longer one would be noticed."""
AWAITED_S = 0.005
"""How long after a request its answer is told of at once, even in a rest: one that comes later can
be a rest later still."""


class Watched:
    """One socket at a hub; made by `ReadinessHub.add`.

    Whoever reads clears `readable` when it has read all that there was, and says whether that was
    little: it `trickles`. After `ended` there is always something to read, if only the end.
    """

    __slots__ = (
        "awaited_until",
        "closed",
        "deadline",
        "ended",
        "fd",
        "readable",
        "task",
        "trickles",
    )

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.readable = False
        self.trickles = False
        self.ended = False
        self.closed = False
        self.awaited_until: float | None = None
        self.deadline = inf
        self.task: trio.lowlevel.Task | None = None


class _Epolls:
    """`awaited` has the sockets whose answers begin, `all` the others and `awaited` itself."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.all = select.epoll()
        try:
            self.awaited = select.epoll()
        except OSError:
            self.all.close()
            raise
        self.all.register(self.awaited, select.EPOLLIN)

    def close(self) -> None:
        for epoll in (self.all, self.awaited):
            trio.lowlevel.notify_closing(epoll)
            epoll.close()

    def of(self, watched: Watched) -> select.epoll:
        return self.all if watched.awaited_until is None else self.awaited

    def move(self, watched: Watched, awaited_until: float | None) -> None:
        """What there is to read is told again. Raises OSError, and then nothing is moved."""
        before = self.of(watched)
        after = self.all if awaited_until is None else self.awaited
        after.register(watched.fd, _EVENTS)
        before.unregister(watched.fd)
        watched.awaited_until = awaited_until


class ReadinessHub:
    """The sockets of one transport. Its two descriptors are open while it has any."""

    def __init__(self) -> None:
        self._epolls: _Epolls | None = None
        self._sockets: dict[int, Watched] = {}
        self._waiting: dict[Watched, None] = {}
        self._leader: Watched | None = None
        self._scope: trio.CancelScope | None = None
        self._look_at = 0.0

    def add(self, fd: int) -> Watched:
        """Watch `fd` until `remove`. Raises OSError where there is no descriptor or memory left."""
        if self._epolls is None:
            self._epolls = _Epolls()
        watched = Watched(fd)
        try:
            self._epolls.all.register(fd, _EVENTS)
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
        if self._epolls is not None:
            self._epolls.of(watched).unregister(watched.fd)
        if watched is self._leader:
            if self._scope is not None:
                self._scope.cancel()
        elif watched in self._waiting:
            self._wake(watched)
        self._close_if_unused()

    def expect(self, watched: Watched) -> None:
        """A request goes out: who waits for what comes of it is not kept waiting by a rest."""
        until = trio.current_time() + AWAITED_S
        if watched.awaited_until is not None:
            watched.awaited_until = until
        elif self._epolls is not None and not watched.closed:
            with suppress(OSError):  # no memory: it is told of a little later
                self._epolls.move(watched, until)

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
                        assert self._epolls is not None
                        await self._something(self._epolls)
                        self._look(self._epolls)
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

    async def _something(self, epolls: _Epolls) -> None:
        """Wait for something to look at, in a rest only for what is awaited."""
        if self._look_at - trio.current_time() < REST_S[0]:
            await trio.lowlevel.wait_readable(epolls.all)
            return
        with trio.CancelScope(deadline=self._look_at):
            await trio.lowlevel.wait_readable(epolls.awaited)

    def _look(self, epolls: _Epolls) -> None:
        now = trio.current_time()
        for fd, events in epolls.awaited.poll(0):
            watched = self._sockets[fd]
            self._tell(watched, events)
            if watched.awaited_until is not None and watched.awaited_until <= now:
                with suppress(OSError):  # no memory: it stays where it is
                    epolls.move(watched, None)
        if self._look_at - now >= REST_S[0]:
            return
        due = max(self._look_at, now)
        for fd, events in epolls.all.poll(0):
            if fd in self._sockets:  # else it is the epoll of the awaited
                watched = self._sockets[fd]
                self._tell(watched, events)
                due += TRICKLE_SHARE_S if watched.trickles else SHARE_S
        self._look_at = min(due, now + REST_S[1])

    def _tell(self, watched: Watched, events: int) -> None:
        watched.readable = True
        if events & _ENDS:
            watched.ended = True
        if watched in self._waiting:
            self._wake(watched)

    def _wake(self, watched: Watched) -> None:
        """It sees by itself why."""
        del self._waiting[watched]
        assert watched.task is not None
        trio.lowlevel.reschedule(watched.task)

    def _close_if_unused(self) -> None:
        if self._epolls is not None and not self._sockets and self._leader is None:
            self._epolls.close()
            self._epolls = None


def _closed() -> trio.ClosedResourceError:
    return trio.ClosedResourceError("another task closed this socket")
