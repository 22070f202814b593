"""Over how many buckets a tenant's ready jobs are spread, so that a hot tenant isn't one partition's, and one worker's.

A quiet tenant's records share one key, and so a partition. One with many gets keys `tenant/bucket`: as many as its rate
is partitions' fair shares, in powers of two. It grows at once and shrinks slowly. Every process that sends records has
one of its own and counts what it sends itself. Pure: the caller passes the time.
"""

from typing import Final
from uuid import UUID

BUCKETS: Final = (1, 2, 4, 8, 16, 32)
"""What a tenant may be spread over. Powers of two: from a job's id follow the few buckets it can ever be in."""

_WINDOW_SECONDS: Final = 5.0
# So few records are one bucket's in any case: 50 a window are 10 a second. Earlier than the broker would need it: a
# partition is one worker's, and 500 jobs of a minute each should be run by all of them.
_BUCKET_RECORDS: Final = 50
# Below a quarter of what its buckets could take for so long, a tenant has half of them.
_REST_SECONDS: Final = 30.0
_SHRINK_SHARE: Final = 0.25
# Some 200 bytes each. Of more tenants within a window those with the fewest records are forgotten.
_TENANTS_MAX: Final = 10_000


def bucket_of(job_id: UUID, buckets: int) -> int:
    """The job's bucket; `buckets` is one of `BUCKETS`. The low bits of a UUIDv7 are chance."""
    # The last byte has bits enough, and costs a quarter of making an integer of all sixteen.
    return job_id.bytes[-1] & (buckets - 1)


class Spread:
    """Counts records by tenant and says how many buckets each is spread over. Times are monotonic seconds."""

    def __init__(self, *, partitions: int, tenants_max: int = _TENANTS_MAX) -> None:
        self._partitions = partitions
        self._tenants_max = tenants_max
        self._ends_at = float("-inf")
        self._counts: dict[UUID, int] = {}
        self._total = 0
        self._before: dict[UUID, int] = {}
        self._total_before = 0
        # Tenants with more than one bucket: how many, and when they last had use for them.
        self._spread: dict[UUID, tuple[int, float]] = {}

    def __len__(self) -> int:
        """How many tenants something is remembered of, at most three times the limit."""
        return len(self._counts) + len(self._before) + len(self._spread)

    def add(self, tenant_id: UUID, *, now: float) -> int:
        """One more record of that tenant; returns the number of buckets that it goes over."""
        if now >= self._ends_at:
            self._turn(now)
        count = self._counts.get(tenant_id, 0) + 1
        if count == 1 and len(self._counts) >= self._tenants_max:
            self._forget_small()
        self._counts[tenant_id] = count
        self._total += 1
        spread = self._spread.get(tenant_id)
        buckets = 1 if spread is None else spread[0]
        # Nearly every record ends here: the exact look costs five times as much, and every eighth is soon enough.
        if count & 7 or count + self._before.get(tenant_id, 0) <= buckets * _BUCKET_RECORDS:
            return buckets
        return self._grow(tenant_id, count, buckets, now)

    def buckets(self, tenant_id: UUID) -> int:
        """How many it is spread over now."""
        spread = self._spread.get(tenant_id)
        return 1 if spread is None else spread[0]

    def _grow(self, tenant_id: UUID, count: int, buckets: int, now: float) -> int:
        # What of the window before still lies within a window's length of now.
        share = max(0.0, self._ends_at - now) / _WINDOW_SECONDS
        lately = count + self._before.get(tenant_id, 0) * share
        fair = self._fair(self._total + self._total_before * share)
        if lately <= buckets * fair:
            return buckets
        if buckets == 1 and len(self._spread) >= self._tenants_max:
            return buckets
        buckets = next((each for each in BUCKETS if lately <= each * fair), BUCKETS[-1])
        self._spread[tenant_id] = (buckets, now)
        return buckets

    def _fair(self, total: float) -> float:
        """What one partition takes in a window, when all take the same."""
        return max(_BUCKET_RECORDS, total / self._partitions)

    def _turn(self, now: float) -> None:
        """Begin another window."""
        skipped = now - self._ends_at >= _WINDOW_SECONDS
        self._before = {} if skipped else self._counts
        self._total_before = 0 if skipped else self._total
        self._counts, self._total = {}, 0
        self._ends_at = now + _WINDOW_SECONDS
        self._shrink(now)

    def _shrink(self, now: float) -> None:
        fair = self._fair(self._total_before)
        for tenant_id, (buckets, used_at) in list(self._spread.items()):
            if self._before.get(tenant_id, 0) > buckets * fair * _SHRINK_SHARE:
                self._spread[tenant_id] = (buckets, now)
                continue
            halvings = int((now - used_at) // _REST_SECONDS)
            left = buckets >> halvings
            if left > 1:
                self._spread[tenant_id] = (left, used_at + halvings * _REST_SECONDS)
            else:
                del self._spread[tenant_id]

    def _forget_small(self) -> None:
        """Make room: whoever is hot has more than the median, and is counted on."""
        median = sorted(self._counts.values())[len(self._counts) // 2]
        self._counts = {tenant_id: count for tenant_id, count in self._counts.items() if count > median}
