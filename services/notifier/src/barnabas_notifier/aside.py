"""Events of tenants without endpoints: put aside unread, and asked about together.

Most tenants of most systems want no webhooks, and an event of theirs costs no more than a look at its record's key.
Nothing rests on what was known a moment ago: before the offsets of what is here are committed, Postgres is asked for
these tenants' endpoints once more, and who has got one meanwhile gets his events.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from barnabas.contract import topics
from barnabas.kafka.partitions import ConsumedRecord

HOLD_SECONDS = 0.2
"""How late the first event after a tenant's first endpoint may be; a tenant who has one waits for nothing."""

_RECORDS_MAX = 5_000
# Some 100 bytes each; who is forgotten is asked for at once again.
_TENANTS_MAX = 20_000
_IDLE_SECONDS = 30.0


class Aside:
    """Lives on the event loop, one per process."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._keys: set[bytes | None] = set()
        self._records: list[ConsumedRecord] = []
        self._due_at = 0.0

    def __len__(self) -> int:
        return len(self._records)

    def learn(self, keys: Iterable[bytes | None], *, without: Iterable[bytes | None]) -> None:
        """Of the tenants with these keys, those of `without` have no endpoint now; the others have."""
        self._keys.difference_update(keys)
        if len(self._keys) > _TENANTS_MAX:
            self._keys.clear()
        self._keys.update(without)

    def put(self, records: Sequence[ConsumedRecord]) -> list[ConsumedRecord]:
        """Keep what can wait; returns what can't."""
        keys, results = self._keys, topics.RESULTS.name
        at_once = [record for record in records if record.key not in keys or record.topic != results]
        if len(at_once) < len(records):
            if not self._records:
                self._due_at = self._monotonic() + HOLD_SECONDS
            self._records += (
                [record for record in records if record.key in keys and record.topic == results] if at_once else records
            )
        return at_once

    @property
    def rest_seconds(self) -> float:
        """How long to wait for further records before these are due."""
        if not self._records:
            return _IDLE_SECONDS
        if len(self._records) >= _RECORDS_MAX:
            return 0.0
        return max(0.0, self._due_at - self._monotonic())

    def take(self) -> list[ConsumedRecord]:
        """All of them when they are due, else none."""
        if not self._records or self.rest_seconds > 0:
            return []
        taken, self._records = self._records, []
        return taken
