"""Which delay topic carries a record next.

A tier holds one fixed delay, so what went in first comes out first; a longer wait takes several hops. Every hop spends
at least the smallest tier, so the hops end.
"""

from collections.abc import Sequence
from typing import Final

# A 30 s backoff that arrives 20 ms late would take nine hops without it; with it a job is at most so much late.
SLACK_SECONDS: Final = 0.2

# Below this a hop through Kafka costs more than it waits: the record stays in memory, its offset open.
HEAP_SECONDS: Final = 1.0


def next_tier(rest_seconds: float, tiers: Sequence[float]) -> float | None:
    """The largest of `tiers` (seconds, any order) not above the rest and 0.2 s, or None: wait for it in memory.

    None below one second of rest, and for a rest that no tier fits. A chain of hops never ends more than 0.2 s late,
    and whoever waits out the last part in memory makes it exact otherwise.
    """
    if rest_seconds < HEAP_SECONDS:
        return None
    return max((tier for tier in tiers if tier <= rest_seconds + SLACK_SECONDS), default=None)
