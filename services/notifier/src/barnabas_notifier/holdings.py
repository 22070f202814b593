"""What this process holds: deliveries by key, the lease batches they came in, and the calls in flight.

Plain bookkeeping on the event loop: a delivery is held from its claim's answer to the commit that ends or releases it.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from barnabas.postgres.deliveries import DeliveryKey
from barnabas_notifier.lanes import Held


@dataclass(slots=True)
class Holdings:
    """All of it is dropped at once when the lease is lost."""

    deliveries: dict[DeliveryKey, Held] = field(default_factory=dict)
    batches: dict[UUID, int] = field(default_factory=dict)
    """Deliveries left by batch; 0 while its claim is in flight."""
    claimed_at: float = float("-inf")
    """When the last claim was sent, by the monotonic clock."""
    calls: dict[Held, "asyncio.Task[None]"] = field(default_factory=dict)

    def expect(self, batch_id: UUID) -> None:
        """A claim is on its way: its batch may appear in Postgres before we know what it holds."""
        self.batches[batch_id] = 0
        self.claimed_at = time.monotonic()

    def unexpect(self, batch_id: UUID) -> None:
        """The claim failed; if it was committed all the same, the recall hands its deliveries back."""
        self.batches.pop(batch_id, None)

    def take(self, batch_id: UUID, claimed: Sequence[Held]) -> None:
        """The claim's deliveries are ours."""
        self.deliveries.update((held.delivery.key, held) for held in claimed)
        if claimed:
            self.batches[batch_id] = len(claimed)
        else:
            self.batches.pop(batch_id, None)

    def done_batches(self, leaving: Iterable[Held]) -> list[UUID]:
        """The batches that will be empty once these have left; nothing changes yet."""
        going: dict[UUID, int] = {}
        for held in leaving:
            going[held.batch_id] = going.get(held.batch_id, 0) + 1
        return [batch for batch, count in going.items() if self.batches.get(batch) == count]

    def leave(self, leaving: Iterable[Held]) -> None:
        """These are written, or somebody else's by now."""
        for held in leaving:
            if self.deliveries.get(held.delivery.key) is held:
                del self.deliveries[held.delivery.key]
            left = self.batches.get(held.batch_id, 0) - 1
            if left > 0:
                self.batches[held.batch_id] = left
            else:
                self.batches.pop(held.batch_id, None)

    def drop_all(self) -> int:
        """Nothing of it is ours any more; calls in flight end. Returns how many deliveries were held."""
        dropped = len(self.deliveries)
        self.deliveries.clear()
        self.batches.clear()
        for call in self.calls.values():
            call.cancel()
        return dropped
