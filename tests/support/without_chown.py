"""Runs a program that may give no file away, as systemd's `SystemCallFilter=~@chown` has it.

    python tests/support/without_chown.py PROGRAM [ARGUMENT...]

The kernel answers EPERM to every chown of it and of what it starts, root or not.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

import pytest

CHOWN_CALLS = {"x86_64": (92, 93, 94, 260), "aarch64": (54, 55)}
"""chown, fchown, lchown, fchownat, by machine."""
possible = pytest.mark.skipif(
    platform.machine() not in CHOWN_CALLS, reason="not known here: the numbers of system calls"
)

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_FILTER_MODE = 2
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def deny_chown() -> None:
    """From here on, for this process. Raises OSError, KeyError on another kind of machine."""
    calls = CHOWN_CALLS[platform.machine()]
    instructions = [(_LOAD_WORD, 0, 0, 0)]
    for index, number in enumerate(calls):
        instructions.append((_JUMP_IF_EQUAL, len(calls) - index, 0, number))
    instructions += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _FAIL | errno.EPERM)]
    packed = b"".join(struct.pack("HBBI", *each) for each in instructions)
    program = _Program(len(instructions), packed)
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))
    _prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_FILTER_MODE), ctypes.byref(program))


def _prctl(option: int, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    zeros = [ctypes.c_ulong(0)] * (4 - len(arguments))
    if libc.prctl(option, *arguments, *zeros):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    deny_chown()
    os.execv(sys.argv[1], sys.argv[1:])
