"""Headroom: the last few slots of a worker are for tenants that hold next to none of them.

Fair order decides who gets a slot that is free. It can't help when none is: a tenant without limits whose jobs take a
minute would fill the worker, and his neighbours would wait a minute for their turn.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from uuid import UUID

# One slot of so many: enough for a few short jobs at a time, too little to be missed by who has the rest, and too
# little to shift the shares of tenants that all have work in line: one of 16 doubled the share of the lightest.
_SLOTS_FOR_EACH = 64


def headroom_of(slots: int) -> int:
    """How many of a worker's slots are kept."""
    return slots // _SLOTS_FOR_EACH


def quiet(slots: int, running: Iterable[UUID]) -> tuple[Counter[UUID], Callable[[UUID], bool]]:
    """How many slots each tenant holds, and whether a tenant holds so few that the kept ones are for him.

    `running` names the tenant of each slot. Whoever takes one counts it: the answer follows.
    """
    most = max(1, headroom_of(slots) // 4)
    held = Counter(running)
    return held, lambda tenant_id: held[tenant_id] < most
