"""The seam between a consumer's thread and its event loop: what one tells the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from barnabas.kafka.partitions import ConsumedRecord, TopicPartition


@dataclass(slots=True)
class Taken:
    """How much the event loop's side has taken from the inbox, ever. Written there, read here."""

    records: int = 0
    bytes: int = 0


class LoopSide(Protocol):
    """What the thread tells the event loop's side; `next_epoch` alone is called on the thread."""

    def next_epoch(self) -> int:
        """A number that no assignment has had."""
        ...

    def deliver(self, records: Sequence[ConsumedRecord]) -> None:
        """Records were read."""
        ...

    def assigned(self, epochs: Mapping[TopicPartition, int]) -> None:
        """Partitions have arrived."""
        ...

    async def begin_assignment(self, epochs: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Partitions arrive; returns where to start."""
        ...

    async def end_assignment(
        self, partitions: Sequence[TopicPartition], *, lost: bool
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """Partitions go; returns epochs and offsets to commit."""
        ...

    def unassigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Partitions have gone, and nobody waits any more for what that ends."""
        ...

    def fail(self, error: BaseException) -> None:
        """The thread ended by a mistake of ours."""
        ...
