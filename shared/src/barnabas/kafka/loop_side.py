"""The seam between a consumer's thread and its event loop: what one tells the other."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from barnabas.kafka.partitions import ConsumedRecord, TopicPartition

T = TypeVar("T")


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


def ask(loop: asyncio.AbstractEventLoop, question: Coroutine[Any, Any, T], limit_seconds: float) -> T:
    """Have the loop answer, from another thread; `TimeoutError` when it doesn't in time, and then it won't begin to."""
    given_up = threading.Event()
    asked = _unless(given_up, question)
    try:
        answer = asyncio.run_coroutine_threadsafe(asked, loop)
    except RuntimeError:
        asked.close()
        question.close()
        raise
    try:
        return answer.result(limit_seconds)
    except TimeoutError:
        given_up.set()
        answer.cancel()
        raise


async def _unless(given_up: threading.Event, question: Coroutine[Any, Any, T]) -> T:
    # A loop that stood still gets to it after all that it was told later: the end of an assignment would end the next.
    if given_up.is_set():
        question.close()
        raise TimeoutError
    return await question
