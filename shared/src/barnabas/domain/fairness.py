"""Which of the waiting records comes next: fair to tenants, weighted between priorities.

A worker's look-ahead holds far more than it runs, bounded in bytes, and this order picks from all of it. Between the
four priorities: start-time fair queueing. Between the tenants of one priority: deficit round robin, one job costing
one unit. Both share out only what is there, so an idle priority's or tenant's part goes to the others. Sources:
Goyal, Vin, Cheng, "Start-time Fair Queueing", 1996; Shreedhar, Varghese, "Efficient Fair Queuing using Deficit Round
Robin", 1995.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from math import lcm
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from barnabas.domain.jobs import Priority

T = TypeVar("T")

DEFAULT_SHARES: Final[Mapping[Priority, int]] = MappingProxyType(
    {Priority.CRITICAL: 25, Priority.HIGH: 25, Priority.MEDIUM: 30, Priority.LOW: 20}
)
"""Parts of the slots while all four priorities have work."""


class LookAhead(Generic[T]):
    """Waiting records in fair order, bounded in bytes.

    `push` and `take` cost the same for each record, however many tenants wait. Within a tenant and priority records
    leave in the order they came. A tenant of weight n gets n in a row where one of weight 1 gets one.
    """

    def __init__(self, *, bytes_max: int, shares: Mapping[Priority, int] = DEFAULT_SHARES) -> None:
        assert bytes_max > 0, "a look-ahead holds something"
        self._levels = [_Level[T]() for _ in Priority]
        self._by_priority = dict(zip(sorted(Priority, reverse=True), self._levels, strict=True))
        self._now = 0
        self._bytes_max = bytes_max
        self._bytes = 0
        self._count = 0
        self._held: dict[Hashable, int] = {}
        self._weights: dict[Hashable, int] = {}
        self.set_shares(shares)

    def set_weights(self, weights: Mapping[Any, int]) -> None:
        """How many these tenants get where others get one; everybody else weighs 1. Counts from the next turn on."""
        assert all(1 <= weight <= 1000 for weight in weights.values()), "a weight is from 1 to 1000"
        self._weights = dict(weights)

    def set_shares(self, shares: Mapping[Priority, int]) -> None:
        """The parts of the slots while all four priorities have work. Counts from each one's next record."""
        assert all(shares[priority] > 0 for priority in Priority), "a priority without a share would starve"
        # A step is exact in whole numbers, so that the order never depends on how long the process has run.
        whole = lcm(*(shares[priority] for priority in Priority))
        for priority, level in self._by_priority.items():
            level.step = whole // shares[priority]
            # Places on the old clock mean nothing on the new one: all that wait begin anew, side by side.
            level.start = 0
        self._now = 0

    def push(self, entry: T, *, tenant: Hashable, priority: Priority, size: int, anyway: bool = False) -> bool:
        """Take in a record of `size` bytes at the end of its tenant's line; False when there is no room for it.

        `anyway` takes it in beyond the bound, for the few whose number is bounded elsewhere.

        An empty look-ahead takes any record, so that one above the bound can't stop its partition for ever.
        """
        assert size > 0, "a record takes up room"
        if self._bytes + size > self._bytes_max and self._count and not anyway:
            return False
        level = self._by_priority[priority]
        if not level.ring:
            # A priority that was idle earns nothing for that time.
            level.start = max(level.start, self._now)
        level.line_of(tenant).records.append((entry, size))
        self._bytes += size
        self._count += 1
        self._held[tenant] = self._held.get(tenant, 0) + size
        return True

    def take(self, count: int) -> list[T]:
        """Up to `count` records, the fairest next first; fewer only when it is empty."""
        taken: list[T] = []
        left = min(count, self._count)
        while left:
            level = self._next_level()
            # While the others are empty, one level's turns follow each other.
            turns = 1 if any(other.ring for other in self._levels if other is not level) else left
            for _ in range(turns):
                self._now = level.start
                level.start += level.step
                entry, size, tenant = level.pop(self._weights)
                self._forget(tenant, size)
                taken.append(entry)
            left -= turns
        return taken

    def take_for(self, count: int, allowed: Callable[[Any], bool]) -> list[T]:
        """Up to `count` records of tenants for whom `allowed` holds; it is asked before each record.

        Out of turn, and charged to nobody's: all others keep their places. Costs one question for each tenant that is
        passed over: for when those are few.
        """
        taken: list[T] = []
        while len(taken) < count and (found := self._next_allowed(allowed)) is not None:
            level, line = found
            entry, size = level.pop_of(line)
            self._forget(line.tenant, size)
            taken.append(entry)
        return taken

    def has_for(self, allowed: Callable[[Any], bool]) -> bool:
        """Whether `take_for` would find anything."""
        return self._next_allowed(allowed) is not None

    def shed(self, bytes_wanted: int, *, newcomers: int = 0) -> list[T]:
        """Give up records of the tenants above their share, until so many bytes are free or nobody is above it.

        A share is the bound divided by weight among the tenants that wait and `newcomers` of weight 1: the tenant of
        a record at hand that holds nothing yet, or those that may be waiting unseen behind it. The largest tenant gives
        first, the newest of its lowest priority; what it keeps stays in order, and what it gives is in order too. An
        empty answer means that nobody takes too much.
        """
        given: list[T] = []
        weights = newcomers + sum(self._weights.get(tenant, 1) for tenant in self._held)
        for tenant in sorted(self._held, key=self._held.__getitem__, reverse=True):
            share = self._bytes_max * self._weights.get(tenant, 1) / weights
            for level in reversed(self._levels):
                while self._bytes_max - self._bytes < bytes_wanted and self._held.get(tenant, 0) > share:
                    newest = level.pop_newest(tenant)
                    if newest is None:
                        break
                    self._forget(tenant, newest[1])
                    given.append(newest[0])
        given.reverse()
        return given

    def remove(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out the records for which `unwanted` holds, such as those of a partition that went away."""
        removed: list[T] = []
        for level in self._levels:
            for tenant, entry, size in level.remove(unwanted):
                self._forget(tenant, size)
                removed.append(entry)
        return removed

    def remove_tenant(self, tenant: Hashable) -> list[T]:
        """Take out everything of a tenant, critical first, each priority in its order."""
        removed: list[T] = []
        for level in self._levels:
            for entry, size in level.drop_line(tenant):
                self._forget(tenant, size)
                removed.append(entry)
        return removed

    def tenants(self) -> dict[Hashable, int]:
        """The tenants that wait, with the bytes each holds."""
        return dict(self._held)

    def waiting(self, priority: Priority) -> int:
        """How many records of a priority wait."""
        return self._by_priority[priority].count

    @property
    def bytes(self) -> int:
        """What is held, in bytes."""
        return self._bytes

    def __len__(self) -> int:
        return self._count

    def _next_level(self) -> "_Level[T]":
        # The first of equals: of two priorities with the same claim the higher one goes first.
        best: _Level[T] | None = None
        for level in self._levels:
            if level.ring and (best is None or level.start < best.start):
                best = level
        assert best is not None, "asked for a record of an empty look-ahead"
        return best

    def _next_allowed(self, allowed: Callable[[Any], bool]) -> "tuple[_Level[T], _Line[T]] | None":
        for level in sorted(self._levels, key=_start_of):
            for line in level.ring:
                if allowed(line.tenant):
                    return level, line
        return None

    def _forget(self, tenant: Hashable, size: int) -> None:
        self._bytes -= size
        self._count -= 1
        left = self._held[tenant] - size
        self._held[tenant] = left
        if not left and not any(tenant in level.lines for level in self._levels):
            del self._held[tenant]


class _Line(Generic[T]):
    """One tenant's records of one priority, oldest first."""

    __slots__ = ("deficit", "records", "tenant")

    def __init__(self, tenant: Hashable) -> None:
        self.tenant = tenant
        self.deficit = 0
        self.records: deque[tuple[T, int]] = deque()


class _Level(Generic[T]):
    """One priority: its lines in round-robin order and its place on the virtual clock."""

    __slots__ = ("lines", "ring", "start", "step")

    def __init__(self) -> None:
        self.start = 0
        self.step = 0
        self.ring: deque[_Line[T]] = deque()
        self.lines: dict[Hashable, _Line[T]] = {}

    @property
    def count(self) -> int:
        return sum(len(line.records) for line in self.ring)

    def line_of(self, tenant: Hashable) -> _Line[T]:
        line = self.lines.get(tenant)
        if line is None:
            line = self.lines[tenant] = _Line(tenant)
            self.ring.append(line)
        return line

    def pop(self, weights: Mapping[Hashable, int]) -> tuple[T, int, Hashable]:
        line = self.ring[0]
        if not line.deficit:
            line.deficit = weights.get(line.tenant, 1)
        entry, size = line.records.popleft()
        line.deficit -= 1
        if not line.records:
            # What an emptied line has left of its turn lapses: nobody saves up.
            self.ring.popleft()
            del self.lines[line.tenant]
        elif not line.deficit:
            self.ring.rotate(-1)
        return entry, size, line.tenant

    def pop_of(self, line: _Line[T]) -> tuple[T, int]:
        """Its oldest, out of its turn."""
        oldest = line.records.popleft()
        if not line.records:
            self._end(line)
        return oldest

    def pop_newest(self, tenant: Hashable) -> tuple[T, int] | None:
        line = self.lines.get(tenant)
        if line is None:
            return None
        newest = line.records.pop()
        if not line.records:
            self._end(line)
        return newest

    def drop_line(self, tenant: Hashable) -> Iterable[tuple[T, int]]:
        line = self.lines.get(tenant)
        if line is None:
            return ()
        self._end(line)
        return line.records

    def remove(self, unwanted: Callable[[T], bool]) -> list[tuple[Hashable, T, int]]:
        removed = []
        for line in list(self.ring):
            kept: deque[tuple[T, int]] = deque()
            for entry, size in line.records:
                if unwanted(entry):
                    removed.append((line.tenant, entry, size))
                else:
                    kept.append((entry, size))
            line.records = kept
            if not kept:
                self._end(line)
        return removed

    def _end(self, line: _Line[T]) -> None:
        self.ring.remove(line)
        del self.lines[line.tenant]


def _start_of(level: _Level[Any]) -> int:
    return level.start
