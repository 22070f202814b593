"""What this process holds: claimed jobs, the lease batches they came in, and the attempts that run.

Plain bookkeeping on the event loop: a job is held from its claim's answer to the commit that ends or releases it.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import msgspec

from barnabas.domain.attempts import Outcome
from barnabas.postgres.turns import ClaimedJob
from barnabas.sdk.app import Handler
from barnabas.sdk.context import Context
from barnabas.sdk.running import Interruption, Run


class Running(Protocol):
    """An attempt in flight, here or in a process of its own."""

    async def run(self, task: "asyncio.Task[Any] | None" = None) -> Run:
        """Run to the outcome; `task` is the one that runs it, for callers that have it at hand."""
        ...

    def interrupt(self, reason: Interruption) -> None:
        """Ask it to end."""
        ...


class Held(msgspec.Struct, eq=False):
    """One job that this process holds, under the worker id that claimed it.

    A msgspec struct, as `Ended`: a dataclass costs five times as much to make, and there is one a job.
    """

    job: ClaimedJob
    worker_id: UUID
    batch_id: UUID
    handler: Handler
    max_attempts: int
    timeout_seconds: float
    context: Context
    attempt: Running
    deadline: float
    """By the event loop's clock."""
    cancel_requested: bool = False
    ended: bool = False


class Ended(msgspec.Struct, eq=False):
    """An attempt that is over and not yet written."""

    held: Held
    outcome: Outcome
    seconds: float
    event_id: UUID | None = None
    """Minted for the first write, so that one which has to be tried again tells the same event."""
    tried: bool = False
    """Whether a write has passed it over, which happens when somebody changed the job's row in that very moment."""


@dataclass(slots=True)
class Holdings:
    """Every job held, by id, and how many of each lease batch are left."""

    jobs: dict[UUID, Held] = field(default_factory=dict)
    batches: dict[UUID, int] = field(default_factory=dict)
    """Jobs left by batch; 0 while its claim is in flight."""
    empty: list[UUID] = field(default_factory=list)
    """Batches whose last job is written; their rows are deleted with the next turn, or when idle."""
    being_deleted: set[UUID] = field(default_factory=set)
    claimed_at: float = float("-inf")
    """When the last claim was sent, by the monotonic clock."""

    def cancel(self, requests: Iterable[tuple[UUID, int]]) -> None:
        """The tenants of these jobs, named with their fences, asked for their end."""
        for job_id, fence in requests:
            held = self.jobs.get(job_id)
            if held is not None and held.job.fence == fence:
                held.cancel_requested = True
                if not held.ended:
                    held.attempt.interrupt(Interruption.CANCEL)

    def interrupt_all(self, reason: Interruption) -> None:
        """Ask every attempt to end."""
        for held in list(self.jobs.values()):
            if not held.ended:
                held.attempt.interrupt(reason)

    def expect(self, batch_id: UUID) -> None:
        """A claim is on its way: its batch may appear in Postgres before we know what it holds."""
        self.batches[batch_id] = 0
        self.claimed_at = time.monotonic()

    def unexpect(self, batch_id: UUID) -> None:
        """The claim failed or gave nothing; if it was committed all the same, the recall hands its jobs back."""
        if not self.batches.get(batch_id):
            self.batches.pop(batch_id, None)

    def take(self, batch_id: UUID, held: Iterable[Held]) -> None:
        """The claim's jobs are ours."""
        count = 0
        for one in held:
            self.jobs[one.job.job_id] = one
            count += 1
        if count:
            self.batches[batch_id] = count
        else:
            self.batches.pop(batch_id, None)

    def leave(self, leaving: Iterable[Held]) -> None:
        """These jobs are written, or somebody else's by now."""
        for held in leaving:
            if self.jobs.get(held.job.job_id) is held:
                del self.jobs[held.job.job_id]
            left = self.batches.get(held.batch_id, 0) - 1
            if left > 0:
                self.batches[held.batch_id] = left
            elif self.batches.pop(held.batch_id, None) is not None:
                self.empty.append(held.batch_id)

    @contextmanager
    def deleting(self) -> Iterator[list[UUID]]:
        """Batches with nothing left in them, for the block to delete; they come back if it fails.

        A batch is deleted only after the commit that let its last job go: two turns may share its jobs, and a row that
        went too early would hide the other turn's jobs from the reaper.
        """
        taken, self.empty = self.empty, []
        self.being_deleted.update(taken)
        try:
            yield taken
        except BaseException:
            self.empty += taken
            raise
        finally:
            self.being_deleted.difference_update(taken)

    def knows(self, batch_id: UUID) -> bool:
        """Whether a batch that Postgres has is one of ours."""
        return batch_id in self.batches or batch_id in self.being_deleted or batch_id in self.empty
