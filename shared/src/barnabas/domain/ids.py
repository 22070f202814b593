"""UUIDv7 as values: made from a time and random bytes that the caller passes in.

Ids of jobs, events and batches. The time is the database's, because a day's partition is chosen by it: a machine with a
wrong clock must not make ids that have no partition. Source: RFC 9562, section 5.7 and 6.2 (method 2).
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from struct import unpack
from typing import Final
from uuid import UUID

# 74 bits of a UUIDv7 are free for chance: 10 bytes, of which 6 bits go unused.
RANDOM_BYTES: Final = 10

_UNIX_MS_BITS: Final = 48
_FREE_BITS: Final = 74
_LOW_BITS: Final = 62
_LOW: Final = (1 << _LOW_BITS) - 1
_VERSION_AND_VARIANT: Final = (0x7 << 76) | (0b10 << 62)

_STEP_BYTES: Final = 4

# A clock may be read slightly back in time after a new measurement of its offset; more than this is a correction.
_BACKWARDS_MS_MAX: Final = 1_000


def uuid7(unix_ms: int, random_bits: bytes) -> UUID:
    """The UUIDv7 of that millisecond; `random_bits` is at least 10 bytes, of which 74 bits are used."""
    assert len(random_bits) >= RANDOM_BYTES, "too little chance for an id"
    return _compose(unix_ms, int.from_bytes(random_bits[:RANDOM_BYTES]) >> 6)


class Uuid7Source:
    """Mints UUIDv7s that grow from one to the next, also within a millisecond.

    `now_ms` gives the database's time in Unix milliseconds, `random_bytes(n)` n unpredictable bytes. Within a
    millisecond, and while the clock is a little behind, the next id is the last one plus a random step; a clock that
    went back by more than a second is believed, for the sake of the partitions. `make` turns 16 bytes into an id, for
    callers that have a quicker one than the standard library's.
    """

    __slots__ = ("_free", "_last_ms", "_make", "_now_ms", "_random_bytes")

    def __init__(
        self,
        *,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        make: Callable[[bytes], UUID] = lambda value: UUID(bytes=value),
    ) -> None:
        self._make = make
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._last_ms = -1
        self._free = 0

    def mint(self) -> UUID:
        """The next id."""
        return self.mint_many(1)[0]

    def mint_many(self, count: int) -> list[UUID]:
        """The next `count` ids, in order, for one look at the clock and one call for chance."""
        now = self._now_ms()
        if now > self._last_ms or now < self._last_ms - _BACKWARDS_MS_MAX:
            self._begin(now)
        make, minted = self._make, []
        frame, free = _number(self._last_ms, 0), self._free
        # A step of 1 to 2**32 leaves room for 2**41 ids and can't be guessed from the id before.
        for step in unpack(f">{count}I", self._random_bytes(_STEP_BYTES * count)):
            free += 1 + step
            if free >> _FREE_BITS:
                self._begin(self._last_ms + 1)
                frame, free = _number(self._last_ms, 0), self._free
            # As `_number` does, without a call for each.
            minted.append(make((frame | free >> _LOW_BITS << 64 | free & _LOW).to_bytes(16)))
        self._free = free
        return minted

    def _begin(self, unix_ms: int) -> None:
        # The top bit starts at 0, so that even the unluckiest start leaves half of the room.
        self._free = int.from_bytes(self._random_bytes(RANDOM_BYTES)) >> 7
        self._last_ms = unix_ms


def uuid7_ms(id: UUID) -> int:  # noqa: A002 - it is the id, and positional in every call
    """The Unix milliseconds in a UUIDv7."""
    return id.int >> 80


def day_floor(day: date) -> UUID:
    """The smallest UUIDv7 of a UTC day: the bound of its partition."""
    midnight = datetime.combine(day, time(), tzinfo=UTC)
    return _compose(round(midnight.timestamp() * 1000), 0)


def _compose(unix_ms: int, free: int) -> UUID:
    return UUID(int=_number(unix_ms, free))


def _number(unix_ms: int, free: int) -> int:
    assert 0 <= unix_ms >> _UNIX_MS_BITS == 0, "a UUIDv7 holds 48 bits of milliseconds"
    return (unix_ms << 80) | (free >> _LOW_BITS << 64) | (free & _LOW) | _VERSION_AND_VARIANT
