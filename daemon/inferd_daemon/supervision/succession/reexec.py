"""Becomes the next version of the daemon in the same process, and receives from the former.

The state travels in a memory file whose descriptor an environment variable names. Runs outside
of trio, in the main thread; never opens, closes or signals anything but that file.
"""

import os
import signal
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import NoReturn

import msgspec

from ... import lean_imports
from ...errors import OperatorError
from .handover import Handover, HandoverError, decode, encode

VARIABLE = "INFERD_HANDOVER_FD"
ACTIVATION = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""After an exec they still seem to be meant for this process: the pid is the same."""


def command() -> list[str]:
    """The daemon's own command line, with the interpreter as it is installed now."""
    return [sys.executable, *sys.orig_argv[1:]]


def memory_file(data: bytes) -> int:
    """A descriptor, closed on exec, at whose start `data` stands. Raises OSError."""
    descriptor = os.memfd_create("inferd-handover")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class KeptSignals:
    """Signals that come while nobody in this process receives them: for the next self."""

    def __init__(self, numbers: Collection[signal.Signals]) -> None:
        self.numbers = numbers
        self._came: list[int] = []

    def note(self, number: int, _frame: object) -> None:
        """A signal handler."""
        self._came.append(number)

    def hold(self) -> None:
        """From here on they wait in the kernel, those that came already with them.

        An exec changes nothing about that: the next self has them once it unblocks them.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)
        while self._came:
            signal.pthread_kill(threading.main_thread().ident or 0, self._came.pop())


@contextmanager
def signals_kept(numbers: Collection[signal.Signals]) -> Iterator[KeptSignals]:
    """For the block, signals of `numbers` that no receiver takes are noted, and end nothing."""
    kept = KeptSignals(numbers)
    before = {number: signal.signal(number, kept.note) for number in numbers}
    try:
        yield kept
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def become_next(handover: Handover, kept: KeptSignals) -> NoReturn:
    """Replace this process's program.

    Raises OSError where that fails; nothing has changed then, but that signals wait.
    """
    argv = command()
    state = memory_file(encode(handover))
    environment = {**os.environ, VARIABLE: str(state)}
    inherited = [state, *handover.descriptors()]
    if handover.code is not None:
        inherited.append(handover.code)
        environment[lean_imports.VARIABLE] = str(handover.code)
    try:
        _set_inheritable(inherited, True)
        kept.hold()
        os.execve(argv[0], argv, environment)
    except OSError:
        _set_inheritable(inherited, False)
        os.close(state)
        raise


def not_gone_over(handover: Handover) -> Handover:
    """For this self, which gets back what it wanted to hand over."""
    if handover.code is not None:
        os.close(handover.code)
    return msgspec.structs.replace(handover, upgrades=handover.upgrades - 1, code=None)


def read_handover(environ: MutableMapping[str, str]) -> Handover | None:
    """What `environ` names, in whichever process; None where it names nothing.

    The variable is removed. Raises OperatorError.
    """
    named = environ.pop(VARIABLE, None)
    if named is None:
        return None
    try:
        with open(int(named), "rb") as file:
            return decode(file.read())
    except (OSError, ValueError, HandoverError) as error:
        raise OperatorError(f"cannot take over ({VARIABLE}={named[:20]}): {error}") from None


def receive(environ: MutableMapping[str, str]) -> Handover | None:
    """The state of this process's former self, its descriptors private again; else None.

    Raises OperatorError.
    """
    handover = read_handover(environ)
    if handover is None:
        return None
    if handover.pid != os.getpid():
        raise OperatorError(f"the handed over state is meant for process {handover.pid}")
    for name in ACTIVATION:
        environ.pop(name, None)
    try:
        _set_inheritable(handover.descriptors(), False)
    except OSError as error:
        raise OperatorError(f"a descriptor was not handed over: {error.strerror}") from error
    return handover


def _set_inheritable(descriptors: Iterable[int], inheritable: bool) -> None:
    for descriptor in descriptors:
        os.set_inheritable(descriptor, inheritable)
