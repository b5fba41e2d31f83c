"""What the journal holds beside the leases, and what it is yet to be told.

An entry that nobody waits for is written soon, by a task; a newer one of the same key takes its
place. Knows nothing of time: when a lease ends is its keeper's.
"""

from collections.abc import Iterable, Sequence

import trio

from .journal import Entry, Gone, Live, RuntimeEntry, encode, encode_again
from .journal_file import JournalFile, JournalUnavailable
from .lease import Claimant
from .spec_room import SpecLimits, SpecRoom

RETRY_S = 1.0
"""Between two tries to settle with a journal that cannot be written."""


class Records:
    """Writes entries, at once or soon. Keep `run` running, and the journal's own.

    Specs of runtimes count for the uid that had them written first.
    """

    def __init__(self, journal: JournalFile, spec_limits: SpecLimits | None = None) -> None:
        self._journal = journal
        self._spec_room = SpecRoom(spec_limits)
        self._known: set[str] = set()
        self._unsettled: dict[str, Entry] = {}
        self._settle_asked = trio.Event()

    def known(self, key: str) -> bool:
        """Whether the journal holds an entry beside the leases."""
        return key in self._known

    def require_room(self, runtimes: Iterable[RuntimeEntry], asks: Claimant) -> None:
        """That those which are not known yet can be written, before anything is done for them.

        Raises RequestError: `queue_full`, EntryTooLong.
        """
        sizes = self._sizes(runtimes)
        if sizes:
            self._spec_room.require(sum(sizes.values()), asks)

    async def write(self, entries: Sequence[Entry]) -> None:
        """Make entries durable. Raises JournalUnavailable."""
        for entry in entries:
            # Written later, it would undo this.
            self._unsettled.pop(entry.key, None)
        await self._journal.append(*entries)
        self._known.update(entry.key for entry in entries if _stands_beside(entry))

    async def write_leases(
        self, leases: Sequence[Entry], runtimes: Sequence[RuntimeEntry], uid: int
    ) -> None:
        """Make leases durable, with what a restart needs for them where it is not known yet.

        Raises EntryTooLong, JournalUnavailable; after that, whether they are on the disk only
        `forget` makes sure.
        """
        sizes = self._sizes(runtimes)
        for key, size in sizes.items():
            self._spec_room.take(key, size, uid)
        try:
            await self.write([*(one for one in runtimes if one.key in sizes), *leases])
        except BaseException:
            for key in sizes.keys() - self._known:
                self._spec_room.give_back(key)
            raise

    async def remember(self, *entries: Live) -> None:
        """Make those durable that are not known yet. Raises JournalUnavailable."""
        fresh = [entry for entry in entries if entry.key not in self._known]
        if fresh:
            await self.write(fresh)

    def note(self, entry: Live) -> None:
        """Have an entry written soon; it counts as known from now on."""
        if _stands_beside(entry):
            self._known.add(entry.key)
        self._settle(entry)

    def forget(self, *keys: str) -> None:
        """Have the journal forget entries; where it cannot now, once it can."""
        for key in keys:
            self._known.discard(key)
            self._spec_room.give_back(key)
            self._settle(Gone(key))

    def take_over(self, entry: RuntimeEntry, uid: int) -> None:
        """An entry of a former run that is in the journal and still holds, for `uid`."""
        self._known.add(entry.key)
        self._spec_room.take(entry.key, len(encode_again(entry)), uid)

    async def run(self) -> None:
        """Write what nobody waits for, until cancelled."""
        while True:
            await self._settle_asked.wait()
            self._settle_asked = trio.Event()
            while self._unsettled:
                entries = list(self._unsettled.values())
                try:
                    await self._journal.append(*entries)
                except JournalUnavailable:
                    await trio.sleep(RETRY_S)
                    continue
                for entry in entries:
                    if self._unsettled.get(entry.key) is entry:
                        del self._unsettled[entry.key]

    def _settle(self, entry: Entry) -> None:
        self._unsettled.pop(entry.key, None)
        self._unsettled[entry.key] = entry
        self._settle_asked.set()

    def _sizes(self, runtimes: Iterable[RuntimeEntry]) -> dict[str, int]:
        """Bytes in the journal of those that are not in it yet, by key."""
        return {one.key: len(encode(one)) for one in runtimes if one.key not in self._known}


def _stands_beside(entry: Entry) -> bool:
    return not entry.key.startswith("lease/")
