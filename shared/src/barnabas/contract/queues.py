"""Queues as the administrator sees them: their names, and how each divides its workers' slots among the priorities."""

from typing import Annotated

import msgspec
from msgspec import Meta

SHARE_MAX = 1_000

Share = Annotated[int, Meta(ge=1, le=SHARE_MAX)]


class Shares(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parts of the slots by priority, while all four have work; what one leaves unused goes to the others."""

    critical: Share = 25
    high: Share = 25
    medium: Share = 30
    low: Share = 20

    def by_priority(self) -> tuple[int, int, int, int]:
        """Low to critical, as stored."""
        return self.low, self.medium, self.high, self.critical


class QueueInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is set of a queue: all of it, so what is left out has its default again."""

    shares: Shares = Shares()


class QueueView(msgspec.Struct, frozen=True):
    """A queue. Jobs that name none are in `default`."""

    name: str
    shares: Shares


class QueueList(msgspec.Struct, frozen=True):
    """All queues, in the order in which they were made; there are few."""

    items: list[QueueView]


def shares_of(stored: tuple[int, ...]) -> Shares:
    """Shares as stored, low to critical."""
    low, medium, high, critical = stored
    return Shares(critical=critical, high=high, medium=medium, low=low)
