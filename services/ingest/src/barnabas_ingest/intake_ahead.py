"""What the intake has read and not yet stored: a flush full at most (twice as many cost no less a job).

Portions grow together while the one before is stored, so commits stay as large as they would be without reading ahead.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from barnabas.kafka.partitions import ConsumedRecord, size_of
from barnabas.runtime.within import set_within
from barnabas_ingest.intake_record import BadRecord, Wanted
from barnabas_ingest.lane import FLUSH_JOBS_MAX

# Records of a megabyte each must not fill the memory: the consumer's inbox, one portion here and one that is stored.
_BYTES_MAX = 4 * 1024 * 1024


class Portion(NamedTuple):
    """Records in the order in which they came, what those ask for that are good, and why the others are bad."""

    records: Sequence[ConsumedRecord] = ()
    wanted: Sequence[Wanted] = ()
    bad: Sequence[BadRecord] = ()

    def only(self, is_fresh: Callable[[ConsumedRecord], bool]) -> "Portion":
        """Those of them."""
        return Portion(
            [record for record in self.records if is_fresh(record)],
            [one for one in self.wanted if is_fresh(one.record)],
            [one for one in self.bad if is_fresh(one[0])],
        )


class ReadAhead:
    """The portion that grows; one reader, one writer."""

    def __init__(self) -> None:
        self._portion = Portion()
        self._bytes = 0
        self._closed = False
        self._arrived = asyncio.Event()
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()

    async def room(self) -> int:
        """How many more records may be read, once it is more than none; 0 at the end."""
        while not self._closed:
            if self._room():
                return self._room()
            self._taken.clear()
            await self._taken.wait()
        return 0

    def put(self, portion: Portion) -> None:
        """These were read."""
        held = self._portion
        self._portion = Portion(
            [*held.records, *portion.records], [*held.wanted, *portion.wanted], [*held.bad, *portion.bad]
        )
        self._bytes += size_of(portion.records)
        self._arrived.set()
        if not self._room():
            self._filled.set()

    async def some(self) -> bool:
        """Wait until there is something to store; false at the end."""
        while not self._closed:
            if self._portion.records:
                return True
            self._arrived.clear()
            await self._arrived.wait()
        return False

    async def full_within(self, seconds: float) -> None:
        """Wait until nothing more has room, for at most so long."""
        if seconds and self._room():
            self._filled.clear()
            await set_within(self._filled, seconds)

    def take(self) -> Portion:
        """All of it."""
        portion, self._portion, self._bytes = self._portion, Portion(), 0
        self._taken.set()
        return portion

    def close(self) -> None:
        """Whoever waits returns; what is here is not stored."""
        self._closed = True
        for event in (self._arrived, self._filled, self._taken):
            event.set()

    def _room(self) -> int:
        if self._bytes >= _BYTES_MAX:
            return 0
        return FLUSH_JOBS_MAX - len(self._portion.records)
