"""Who is next: one line for each tenant before a few places, so that nobody's long line is in another's way.

A place that comes free goes to the tenant that holds the fewest, among equals to the one whose last turn is longest
ago. So a tenant with a thousand minute-long jobs gets every place while it is alone, and a neighbour's first job the
next one that comes free. Nothing here reads a clock: the caller passes `now` in seconds.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

Waiter = TypeVar("Waiter")

# Whoever was sent away before its turn comes back by way of Postgres and Kafka: at once, or after some seconds.
_REMEMBERED_SECONDS = 30.0
# Only fairness between equals suffers when more than so many have left within that time.
_REMEMBERED_MAX = 4_096


@dataclass(slots=True, eq=False)
class _Line(Generic[Waiter]):
    turn: tuple[int, int]
    """Smaller is earlier."""
    waiting: deque[Waiter] = field(default_factory=deque)
    running: int = 0
    left_at: float = 0.0


class Lines(Generic[Waiter]):
    """The waiters of each tenant in order of arrival, and how many places each tenant holds.

    A tenant that left without having had its turn keeps its precedence for half a minute: attempts wait for seconds and
    places may be taken for minutes, so without that the order of those who wait would be by chance.
    """

    def __init__(self) -> None:
        self._lines: dict[UUID, _Line[Waiter]] = {}
        self._left: OrderedDict[UUID, _Line[Waiter]] = OrderedDict()
        """Those with nobody there any more, the first to leave first."""
        self._turns = 0
        self._newcomers = 0

    def __len__(self) -> int:
        """How many wait."""
        return sum(len(line.waiting) for line in self._lines.values())

    def is_full_for(self, tenant_id: UUID, *, waiters_max: int, tenants_max: int) -> bool:
        """Whether one more of this tenant had better come again later.

        Each of the tenants that wait may have an equal part of `waiters_max`, and one in any case; a tenant that has
        nobody there yet may always come, unless `tenants_max` others wait.

        With n tenants never more than `waiters_max` * (1 + 1/2 + ... + 1/n) + n wait, whoever came first.
        """
        line = self._lines.get(tenant_id)
        own = 0 if line is None else len(line.waiting)
        tenants = sum(1 for each in self._lines.values() if each.waiting)
        if own == 0:
            return tenants >= tenants_max
        return own >= waiters_max // tenants

    def join(self, tenant_id: UUID, waiter: Waiter, *, now: float) -> None:
        """Wait behind the others of this tenant."""
        self._forget(now)
        line = self._lines.get(tenant_id)
        if line is None:
            line = self._left.pop(tenant_id, None) or _Line(self._newcomers_turn())
            self._lines[tenant_id] = line
        line.waiting.append(waiter)

    def leave(self, tenant_id: UUID, waiter: Waiter, *, now: float) -> None:
        """Wait no longer; without effect for one that isn't there."""
        line = self._lines.get(tenant_id)
        if line is not None and waiter in line.waiting:
            line.waiting.remove(waiter)
            self._see_off(tenant_id, line, now)

    def first(self) -> tuple[UUID, Waiter] | None:
        """The next one, and whose it is; None when nobody waits."""
        waiting = ((tenant_id, line) for tenant_id, line in self._lines.items() if line.waiting)
        found = min(waiting, key=lambda each: (each[1].running, each[1].turn), default=None)
        return None if found is None else (found[0], found[1].waiting[0])

    def start(self, tenant_id: UUID) -> None:
        """The first of this tenant has a place now."""
        line = self._lines[tenant_id]
        line.waiting.popleft()
        line.running += 1
        self._turns += 1
        line.turn = (self._turns, 0)

    def end(self, tenant_id: UUID, *, now: float) -> None:
        """A place of this tenant is free again."""
        line = self._lines[tenant_id]
        line.running -= 1
        self._see_off(tenant_id, line, now)

    def _newcomers_turn(self) -> tuple[int, int]:
        """Before the tenant that had the last turn, behind all that have waited longer: so nobody waits for ever."""
        self._newcomers += 1
        return self._turns - 1, self._newcomers

    def _see_off(self, tenant_id: UUID, line: _Line[Waiter], now: float) -> None:
        if not line.waiting and not line.running:
            del self._lines[tenant_id]
            line.left_at = now
            self._left[tenant_id] = line
            self._forget(now)

    def _forget(self, now: float) -> None:
        while self._left:
            longest_gone = next(iter(self._left.values()))
            if len(self._left) <= _REMEMBERED_MAX and now - longest_gone.left_at < _REMEMBERED_SECONDS:
                return
            self._left.popitem(last=False)
