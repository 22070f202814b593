"""Lines of jobs with one ordering key: strictly one after the other, in the order of submission.

This is the rule that the accept functions, `pass_order_v1` and the redrive follow in Postgres; tests run both side by
side. Only a line's head may be ready or running; the others are blocked, and the end of the head lets the next pass.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)


class Order(Enum):
    """What a job in a line may do."""

    BLOCKED = "blocked"
    """Others are before it."""
    READY = "ready"
    """The head: queued, due later, or between two attempts."""
    RUNNING = "running"
    """The head, held by a worker."""
    HELD = "held"
    """A dead letter that keeps its place, so that the line stands until it is redriven or discarded."""


@dataclass(slots=True)
class OrderedLine(Generic[Job]):
    """One tenant's jobs with one key. Every step returns the jobs that it made ready."""

    hold_dead: bool = False
    """Whether a dead letter stops the line (`block`) or lets the next pass (`continue`)."""
    _seats: dict[int, Job] = field(default_factory=dict)
    _orders: dict[Job, Order] = field(default_factory=dict)
    _last_seq: int = 0

    def accept(self, job: Job) -> list[Job]:
        """A job was submitted: it goes to the end."""
        self._last_seq += 1
        return self._seat(self._last_seq, job)

    def start(self, job: Job) -> bool:
        """A worker asks for it; false when it isn't its turn, or it runs already."""
        if self._orders.get(job) is not Order.READY:
            return False
        self._orders[job] = Order.RUNNING
        return True

    def retry(self, job: Job) -> None:
        """Its attempt is over and another will follow: it keeps the line, however long that takes."""
        assert self._orders[job] is Order.RUNNING, "only what runs can be tried again"
        self._orders[job] = Order.READY

    def end(self, job: Job) -> list[Job]:
        """It ended well, or was cancelled."""
        del self._seats[self.seq_of(job)]
        del self._orders[job]
        return self._next_ready()

    def die(self, job: Job) -> tuple[list[Job], int]:
        """It became a dead letter; also its place, for whoever is redriven in its stead."""
        assert self._orders[job] is Order.RUNNING, "only what runs can fail"
        seq = self.seq_of(job)
        if self.hold_dead:
            self._orders[job] = Order.HELD
            return [], seq
        return self.end(job), seq

    def redrive(self, dead: Job, job: Job, seq: int) -> list[Job]:
        """`job` takes the place of a dead letter, before everything that came later and hasn't started.

        A job of a later place that is ready or runs already stays so: nothing that has started is called back, and what
        is in a topic can't be. The redriven job is next then.
        """
        if self._orders.get(dead) is Order.HELD:
            del self._orders[dead]
            del self._seats[seq]
        return self._seat(seq, job)

    def discard(self, dead: Job) -> list[Job]:
        """A dead letter is given up: a line that it held goes on."""
        return self.end(dead) if self._orders.get(dead) is Order.HELD else []

    def seq_of(self, job: Job) -> int:
        """A job's place; raises KeyError for one that isn't in the line."""
        for seq, other in self._seats.items():
            if other == job:
                return seq
        raise KeyError(job)

    def orders(self) -> dict[Job, Order]:
        """Every job of the line by its place, with what it may do."""
        return {self._seats[seq]: self._orders[self._seats[seq]] for seq in sorted(self._seats)}

    def _seat(self, seq: int, job: Job) -> list[Job]:
        assert seq not in self._seats, "a place is taken by one job"
        self._seats[seq] = job
        self._orders[job] = Order.BLOCKED
        return self._next_ready()

    def _next_ready(self) -> list[Job]:
        if any(order is not Order.BLOCKED for order in self._orders.values()):
            return []
        if not self._seats:
            return []
        head = self._seats[min(self._seats)]
        self._orders[head] = Order.READY
        return [head]
