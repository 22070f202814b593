"""A made-up run in which every promise holds: the ledger and the final state of it, from a seed.

It has all that may happen: several tenants and ways in, unknown and refused submissions, retries, snoozes, cancels,
ordering keys, redrives, dead letters, webhooks that come again, and around its faults losses, hand-backs, zombies.
"""

import random
import uuid
from collections import Counter
from collections.abc import Callable
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
    GateRow,
    KeyRow,
    PartitionRead,
    RedriveRow,
)
from tests.chaos.ledger import (
    Accepted,
    Accepting,
    Began,
    Cancelled,
    CrashPoint,
    Effect,
    Event,
    FaultBegan,
    FaultEnded,
    Received,
    Redriven,
    Refused,
    Unknown,
)

SECONDS = 1000.0
CALM = ((10.0, 240.0), (360.0, 540.0), (660.0, 740.0), (860.0, 990.0))
"""Far enough from every fault for a job and its webhooks."""
_TROUBLED = ((298.0, 309.0), (598.0, 604.0), (799.0, 802.0))
_PARTITIONS = 4
_TOPICS = ("barnabas.results", "barnabas.jobs.dlq", "barnabas.deliveries.dlq")


@dataclass(slots=True)
class _Job:
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
        partition = self.random.randrange(_PARTITIONS)
        self.offsets[topic, partition] += 1
        return partition, 99 + self.offsets[topic, partition]


def good_run(seed: int, *, jobs: int = 300) -> GoodRun:
    """A run of about that many jobs."""
    run = GoodRun(random.Random(seed), final=_empty())
    tenants = [run.new_id() for _ in range(3)]
    for tenant in tenants:
        for event_types, until in ((None, None), (("job.failed", "job.cancelled"), None), (None, SECONDS / 2)):
            run.final.endpoints.append(EndpointRow(tenant, run.new_id(), 0.0, event_types, until))
        run.final.gates.append(GateRow(tenant, "tenant", "", 0, 5))
    _faults(run)
    ways = list(_WAYS)
    for number in range(jobs):
        # Each way at least once, then at random, most of them plain.
        way = ways[number] if number < len(ways) else run.random.choice([_plain, _plain, _plain, *ways])
        way(run, run.random.choice(tenants))
    run.events.sort(key=lambda event: event.at)
    run.final.partitions.extend(
        PartitionRead(topic, partition, 100, 100 + run.offsets[topic, partition], run.offsets[topic, partition])
        for topic in _TOPICS
        for partition in range(_PARTITIONS)
    )
    run.final.counted.update(Counter(row.state for row in run.final.ended))
    return run


def _empty() -> Final:
    return Final(
        ended=[], attempts=[], keys=[], redrives=[], endpoints=[], deliveries=[], dead_letters=[], gates=[],
        events=[], dead_jobs=[], dead_deliveries=[], partitions=[], left={"outbox": 0, "timers": 0}, counted={},
    )  # fmt: skip


def _faults(run: GoodRun) -> None:
    run.events += [
        FaultBegan(300.0, "kill", "worker", 1),
        FaultEnded(305.0, 1),
        FaultBegan(600.0, "stop", "worker", 2),
        FaultEnded(603.0, 2),
        CrashPoint(800.0, "after_claim", 7),
    ]


def _calm(run: GoodRun) -> float:
    begin, end = run.random.choice(CALM)
    return run.random.uniform(begin, end - 60)


def _troubled(run: GoodRun) -> float:
    return run.random.uniform(*run.random.choice(_TROUBLED))


def _asked(
    run: GoodRun,
    tenant: str,
    at: float,
    *,
    type: str = "effect",  # noqa: A002 - what it is
    expected: str = "",
    due_at: float | None = None,
    max_attempts: int | None = None,
    ordering_key: str | None = None,
) -> _Job:
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
    return _Job(tenant, job, at + 0.5, type)


def _claimed(
    run: GoodRun,
    job: _Job,
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


def _ended(
    run: GoodRun,
    job: _Job,
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
        run.final.events.append(_record(run, row, _TOPICS[0]))  # type: ignore[union-attr]  # it is a list here
    if state == "failed":
        if not is_redriven:
            run.final.dead_letters.append(DeadLetterRow(job.tenant, "job", job.id, reason or ""))
        run.final.dead_jobs.append(_record(run, row, _TOPICS[1]))  # type: ignore[union-attr]  # as above
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
            DeadDeliveryRecord(*run.place(_TOPICS[2]), row.tenant, row.event_id, endpoint.endpoint, row.job)
        )
    elif chance < 0.5 and any(begin - 10 < at < end + 10 for begin, end in _TROUBLED):
        # Taken, but whoever called died before it could write that down.
        called(204)
        called(204)
        stored("succeeded", 1, 2, 204)
    else:
        called(204)
        stored("succeeded", 1, 1, 204)


def _plain(run: GoodRun, tenant: str) -> None:
    job = _asked(run, tenant, _calm(run), expected="succeeded")
    _ended(run, job, "succeeded", result=_claimed(run, job, None, effect=True))


def _unwatched(run: GoodRun, tenant: str) -> None:
    job = _asked(run, tenant, _calm(run), type="echo", expected="succeeded")
    _claimed(run, job, None)
    _ended(run, job, "succeeded", result="echoed")


def _retried(run: GoodRun, tenant: str) -> None:
    job = _asked(run, tenant, _calm(run), expected="succeeded", max_attempts=4)
    for wait in (0.5, 1.0):
        _claimed(run, job, "attempt", wait=wait)
    _claimed(run, job, "snooze", wait=2.0)
    _ended(run, job, "succeeded", result=_claimed(run, job, None, effect=True))


def _scheduled(run: GoodRun, tenant: str) -> None:
    at = _calm(run)
    job = _asked(run, tenant, at, expected="succeeded", due_at=at + 20)
    job.at = at + 20
    _ended(run, job, "succeeded", result=_claimed(run, job, None, effect=True))


def _dead(run: GoodRun, tenant: str) -> None:
    job = _asked(run, tenant, _calm(run), expected="failed", max_attempts=2)
    _claimed(run, job, "attempt", wait=0.5)
    _claimed(run, job, None)
    _ended(run, job, "failed", reason="attempts_exhausted")


def _redriven(run: GoodRun, tenant: str) -> None:
    job = _asked(run, tenant, _calm(run), expected="failed")
    _claimed(run, job, None)
    _ended(run, job, "failed", reason="permanent_error", is_redriven=True)
    new = _Job(tenant, run.new_id(), job.at + 5)
    run.events.append(Redriven(new.at, tenant, job.id, new.id))
    run.final.redrives.append(RedriveRow(tenant, job.id, new.id))
    _ended(run, new, "succeeded", result=_claimed(run, new, None, effect=True))


def _cancelled(run: GoodRun, tenant: str) -> None:
    how = run.random.randrange(3)
    job = _asked(run, tenant, _calm(run), due_at=None if how else SECONDS)
    if how == 1:
        _claimed(run, job, "attempt", wait=5.0)
        job.at -= 2.0
    if how == 2:
        _claimed(run, job, None, seconds=2.0)
    run.events.append(Cancelled(job.at - 0.3, tenant, job.id))
    _ended(run, job, "cancelled", held=how == 2)


def _lined_up(run: GoodRun, tenant: str) -> None:
    at = _calm(run)
    line = f"line-{run.keys}"
    jobs = [_asked(run, tenant, at + place, expected="succeeded", ordering_key=line) for place in range(3)]
    turn = at + 4
    for job in jobs:
        job.at = turn
        result = _claimed(run, job, None, effect=True)
        turn = job.at
        _ended(run, job, "succeeded", result=result)


def _lost(run: GoodRun, tenant: str) -> None:
    job = _asked(run, tenant, _troubled(run), expected="succeeded")
    # A zombie's effect, sometimes: its run had come that far.
    _claimed(run, job, "loss", seconds=5.0, effect=run.random.random() < 0.5)
    _claimed(run, job, "hand_back", runs=run.random.random() < 0.5)
    _ended(run, job, "succeeded", result=_claimed(run, job, None, effect=True))


def _convicted(run: GoodRun, tenant: str) -> None:
    job = _asked(run, tenant, _troubled(run), expected="succeeded")
    _claimed(run, job, "loss")
    _claimed(run, job, "loss")
    _claimed(run, job, None)
    _ended(run, job, "failed", reason="worker_lost")


def _refused(run: GoodRun, tenant: str) -> None:
    at = _calm(run)
    run.keys += 1
    key = f"k{run.keys}"
    run.events += [Accepting(at, key, tenant, body_hash="b1"), Refused(at + 0.1, key, tenant, 429)]


def _vanished(run: GoodRun, tenant: str) -> None:
    """Nobody knows what became of it, and it has no job."""
    at = _troubled(run)
    run.keys += 1
    run.events += [Accepting(at, f"k{run.keys}", tenant, body_hash="b1"), Unknown(at + 5, f"k{run.keys}", tenant)]


def _conflict(run: GoodRun, tenant: str) -> None:
    job = _asked(run, tenant, _calm(run), expected="succeeded")
    key = f"k{run.keys}"
    run.events += [
        Accepting(job.at, key, tenant, body_hash="b2"),
        Refused(job.at + 0.01, key, tenant, 422, "b2"),
    ]
    _ended(run, job, "succeeded", result=_claimed(run, job, None, effect=True))


_WAYS: tuple[Callable[[GoodRun, str], None], ...] = (
    _plain,
    _unwatched,
    _retried,
    _scheduled,
    _dead,
    _redriven,
    _cancelled,
    _lined_up,
    _lost,
    _convicted,
    _refused,
    _vanished,
    _conflict,
)
