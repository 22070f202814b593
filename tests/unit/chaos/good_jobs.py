"""One job of a made-up run: asked for, claimed, ended and told of, in the ledger and in the final state."""

import random
import uuid
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.final import (
    AttemptRow,
    DeadDeliveryRecord,
    DeadLetterRow,
    DeliveryRow,
    EndedJob,
    EndpointRow,
    EventRecord,
    Final,
    KeyRow,
)
from tests.chaos.ledger import (
    Accepted,
    Accepting,
    Began,
    Effect,
    Event,
    Received,
    Refused,
    Unknown,
)

CALM = ((10.0, 240.0), (360.0, 540.0), (660.0, 740.0), (860.0, 990.0))
"""Far enough from every fault for a job and its webhooks."""
_TROUBLED = ((298.0, 309.0), (598.0, 604.0), (799.0, 802.0))
PARTITIONS = 4
TOPICS = ("barnabas.results", "barnabas.jobs.dlq", "barnabas.deliveries.dlq")


@dataclass(slots=True)
class MadeJob:
    """A job on its way; `at` is how far it has come."""

    tenant: str
    id: str
    at: float
    type: str = "effect"
    number: int = 1
    losses: int = 0
    fence: int = 0
    started_at: float | None = None


@dataclass(slots=True)
class GoodRun:
    """The run, as the checker takes it."""

    random: random.Random
    events: list[Event] = field(default_factory=list)
    final: Final = field(default_factory=lambda: Final(partitions=[]))
    offsets: Counter[tuple[str, int]] = field(default_factory=Counter)
    keys: int = 0

    def new_id(self) -> str:
        """An id that only the seed decides."""
        return str(uuid.UUID(int=self.random.getrandbits(128)))

    def place(self, topic: str) -> tuple[int, int]:
        """The next free place in a topic."""
        partition = self.random.randrange(PARTITIONS)
        self.offsets[topic, partition] += 1
        return partition, 99 + self.offsets[topic, partition]


def calm(run: GoodRun) -> float:
    begin, end = run.random.choice(CALM)
    return run.random.uniform(begin, end - 60)


def troubled(run: GoodRun) -> float:
    return run.random.uniform(*run.random.choice(_TROUBLED))


def asked(
    run: GoodRun,
    tenant: str,
    at: float,
    *,
    type: str = "effect",  # noqa: A002 - what it is
    expected: str = "",
    due_at: float | None = None,
    max_attempts: int | None = None,
    ordering_key: str | None = None,
) -> MadeJob:
    """A submission that was accepted, in one of the ways in which that goes."""
    run.keys += 1
    key, job = f"k{run.keys}", run.new_id()
    via = run.random.choice(["http", "batch", "kafka"])
    asking = Accepting(at, key, tenant, via, "b1", type, expected, due_at, max_attempts, ordering_key)
    run.events.append(asking)
    if run.random.random() < 0.1:
        # The answer got lost once, and it was asked again.
        run.events += [
            Unknown(at + 0.2, key, tenant) if run.random.random() < 0.5 else Refused(at + 0.2, key, tenant, 503),
            Accepting(at + 0.3, key, tenant, via, "b1", type, expected, due_at, max_attempts, ordering_key),
        ]
    if run.random.random() < 0.97:
        run.events.append(Accepted(at + 0.4, key, tenant, "" if via == "kafka" else job))
    run.final.keys.append(KeyRow(tenant, key, job))
    return MadeJob(tenant, job, at + 0.5, type)


def claimed(
    run: GoodRun,
    job: MadeJob,
    kind: str | None,
    *,
    seconds: float = 0.5,
    runs: bool = True,
    effect: bool = False,
    wait: float | None = None,
) -> str:
    """One claim and how it ended; `kind` None ends the job. Returns its result, if it had an effect."""
    job.fence += 1
    begin = job.started_at = job.at + run.random.uniform(0.01, 0.2)
    job.at = begin + seconds
    result = ""
    if runs and job.type != "echo":
        pid = run.random.randrange(100, 105)
        run.events.append(Began(begin + 0.01, job.tenant, job.id, job.number, pid=pid, losses=job.losses))
        if effect:
            result = run.new_id()
            made = Effect(job.at - 0.01, job.tenant, job.id, job.number, 0, pid, job.losses, result)
            run.events.append(made)
    if kind is not None:
        next_at = None if wait is None else job.at + wait
        row = AttemptRow(job.tenant, job.id, job.number, job.fence, kind, begin, job.at, next_at)
        run.final.attempts.append(row)
        job.number += kind == "attempt"
        job.losses += kind == "loss"
        job.at = next_at or job.at
    return result


def ended(
    run: GoodRun,
    job: MadeJob,
    state: str,
    *,
    result: str = "",
    reason: str | None = None,
    held: bool = True,
    is_redriven: bool = False,
) -> EndedJob:
    """The final row, its event, its dead letter and its webhooks."""
    lost = reason == "worker_lost"
    row = EndedJob(
        job.tenant,
        job.id,
        state,
        job.number if held and not lost else job.number - 1,
        job.fence,
        run.new_id(),
        result,
        job.started_at,
        job.at,
        job.losses + lost,
        reason,
        held,
        job.type,
    )
    run.final.ended.append(row)
    # A record may come twice: whoever relays it can't know.
    for _ in range(1 if run.random.random() < 0.9 else 2):
        run.final.events.append(_record(run, row, TOPICS[0]))  # type: ignore[union-attr]  # it is a list here
    if state == "failed":
        if not is_redriven:
            run.final.dead_letters.append(DeadLetterRow(job.tenant, "job", job.id, reason or ""))
        run.final.dead_jobs.append(_record(run, row, TOPICS[1]))  # type: ignore[union-attr]  # as above
    for endpoint in run.final.endpoints:
        if endpoint.tenant == job.tenant and f"job.{state}" in (endpoint.event_types or (f"job.{state}",)):
            _delivered(run, row, endpoint)
    return row


def _record(run: GoodRun, row: EndedJob, topic: str) -> EventRecord:
    return EventRecord(
        *run.place(topic),
        row.tenant,
        row.event_id,
        row.job,
        f"job.{row.state}",
        row.attempt,
        row.fence,
        row.reason,
        row.finished_at + run.random.uniform(0.0, 0.5),
    )


def _delivered(run: GoodRun, row: EndedJob, endpoint: EndpointRow) -> None:
    delivery = run.new_id()
    at = row.finished_at + 0.3

    def called(answered: int) -> None:
        nonlocal at
        at += 0.5
        run.events.append(
            Received(at, row.tenant, endpoint.endpoint, row.event_id, row.job, f"job.{row.state}", True, answered)
        )

    def stored(state: str, attempts: int, claims: int, status: int | None = None) -> None:
        run.final.deliveries.append(
            DeliveryRow(
                row.tenant,
                row.event_id,
                endpoint.endpoint,
                row.job,
                state,
                attempts,
                claims,
                at + 0.1,
                status,
                delivery,
            )
        )

    chance = run.random.random()
    if endpoint.until is not None and at > endpoint.until:
        stored("cancelled", 0, 0)
    elif chance < 0.1:
        called(500)
        called(0)
        called(204)
        stored("succeeded", 3, 3, 204)
    elif chance < 0.15:
        called(500)
        called(410)
        stored("failed", 2, 2, 410)
        run.final.dead_letters.append(DeadLetterRow(row.tenant, "delivery", delivery, "endpoint_gone"))
        run.final.dead_deliveries.append(  # type: ignore[union-attr]  # as above
            DeadDeliveryRecord(*run.place(TOPICS[2]), row.tenant, row.event_id, endpoint.endpoint, row.job)
        )
    elif chance < 0.5 and any(begin - 10 < at < end + 10 for begin, end in _TROUBLED):
        # Taken, but whoever called died before it could write that down.
        called(204)
        called(204)
        stored("succeeded", 1, 2, 204)
    else:
        called(204)
        stored("succeeded", 1, 1, 204)
