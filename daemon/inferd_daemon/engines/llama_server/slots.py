"""llama-server's API of slots: which there are, and their caches saved to files and restored.

Paths are the server's own, below its `--slot-save-path`. A truncated file aborts the server that
is to restore it: whoever asks for that has checked the file.
"""

from typing import TypeVar

import msgspec
from msgspec import Struct

from ...backends.runtime import Endpoint
from ..http_probe import ProbeError, fetch
from ..model_facts import UNREADABLE


class SlotError(Exception):
    """The server did not do it; the text says why."""


class SlotRefused(SlotError):
    """The server lives, and said that it would not."""


class Slot(Struct, frozen=True):
    """One slot as the server lists it."""

    id: int
    is_processing: bool = False


class _Saved(Struct):
    n_saved: int


class _Restored(Struct):
    n_restored: int


class _Props(Struct):
    build_info: str = ""
    is_sleeping: bool = False


Reply = TypeVar("Reply")


async def list_slots(endpoint: Endpoint) -> list[Slot]:
    """Every slot; none of a server that sleeps, which has forgotten them. Raises SlotError."""
    # To list the slots would wake it.
    if (await _ask(endpoint, "/props", _Props)).is_sleeping:
        return []
    return await _ask(endpoint, "/slots", list[Slot])


async def save_slot(endpoint: Endpoint, slot: int, name: str) -> int:
    """Write a slot's cache to the file `name`: how many tokens it holds. Raises SlotError.

    What a failure leaves of the file is no cache.
    """
    path = f"/slots/{slot}?action=save"
    return (await _ask(endpoint, path, _Saved, {"filename": name})).n_saved


async def restore_slot(endpoint: Endpoint, slot: int, name: str) -> int:
    """Read the file `name` into a slot: how many tokens that were. Raises SlotError.

    Where it is no SlotRefused, the file may have killed the server.
    """
    path = f"/slots/{slot}?action=restore"
    return (await _ask(endpoint, path, _Restored, {"filename": name})).n_restored


async def read_build(endpoint: Endpoint) -> str:
    """What the server says of its version. Raises SlotError."""
    return (await _ask(endpoint, "/props", _Props)).build_info


async def _ask(endpoint: Endpoint, path: str, reply: type[Reply], body: object = None) -> Reply:
    try:
        status, text = await fetch(endpoint, path, body)
        if status != 200:
            raise SlotRefused(f"{path} answers {status}: {text[:200].decode(errors='replace')}")
        return msgspec.json.decode(text, type=reply)
    except (ProbeError, *UNREADABLE) as error:
        raise SlotError(f"{path}: {error}") from error
