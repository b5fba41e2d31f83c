"""Which upstream has seen the beginning of a conversation: it still has it in its KV cache. Pure.

Keeps hashes alone, never a word of a prompt. They differ from one daemon to the next (Python keys
its hashes by process), so nobody can choose a prompt that passes for another.
"""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from ..backends.base import GenerateRequest

CAPACITY = 4096
"""Conversations that are remembered for each group: far more than slots that could hold them."""
_encode = msgspec.msgpack.Encoder().encode


class Affinity:
    """The upstream that served each of the latest conversations, by the hash of its messages."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._served_by: OrderedDict[int, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._served_by)

    def find(self, prefixes: Sequence[int]) -> str | None:
        """Who served the longest of `prefixes`, which are in the order of their length."""
        for prefix in reversed(prefixes):
            upstream = self._served_by.get(prefix)
            if upstream is not None:
                return upstream
        return None

    def remember(self, prefix: int, upstream: str) -> None:
        """`upstream` has served the conversation `prefix`; forgets the one unused for longest."""
        self._served_by[prefix] = upstream
        self._served_by.move_to_end(prefix)
        if len(self._served_by) > self._capacity:
            self._served_by.popitem(last=False)


def prefix_hashes(request: GenerateRequest) -> list[int]:
    """One hash for each beginning of the conversation that holds more than system messages.

    The last one stands for the whole. Tools count as part of it: chat templates put them first.
    """
    prefix = hash(_encode(request.tools)) if request.tools else 0
    hashes: list[int] = []
    begun = False
    for message in request.messages:
        begun = begun or message.role != "system"
        prefix = hash((prefix, _encode(message)))
        if begun:
            hashes.append(prefix)
    return hashes
