"""A made-up run in which every promise holds: the ledger and the final state of it, from a seed.

It has all that may happen: several tenants and ways in, unknown and refused submissions, retries, snoozes, cancels,
ordering keys, redrives, dead letters, webhooks that come again, and around its faults losses, hand-backs, zombies.
"""

import random
from collections import Counter
from collections.abc import Callable

from tests.chaos.final import (
    EndpointRow,
    Final,
    GateRow,
    PartitionRead,
    RedriveRow,
)
from tests.chaos.ledger import (
    Accepting,
    Cancelled,
    CrashPoint,
    FaultBegan,
    FaultEnded,
    Redriven,
    Refused,
    Unknown,
)
from tests.unit.chaos.good_jobs import PARTITIONS, TOPICS, GoodRun, MadeJob, asked, calm, claimed, ended, troubled

SECONDS = 1000.0


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
        for topic in TOPICS
        for partition in range(PARTITIONS)
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


def _plain(run: GoodRun, tenant: str) -> None:
    job = asked(run, tenant, calm(run), expected="succeeded")
    ended(run, job, "succeeded", result=claimed(run, job, None, effect=True))


def _unwatched(run: GoodRun, tenant: str) -> None:
    job = asked(run, tenant, calm(run), type="echo", expected="succeeded")
    claimed(run, job, None)
    ended(run, job, "succeeded", result="echoed")


def _retried(run: GoodRun, tenant: str) -> None:
    job = asked(run, tenant, calm(run), expected="succeeded", max_attempts=4)
    for wait in (0.5, 1.0):
        claimed(run, job, "attempt", wait=wait)
    claimed(run, job, "snooze", wait=2.0)
    ended(run, job, "succeeded", result=claimed(run, job, None, effect=True))


def _scheduled(run: GoodRun, tenant: str) -> None:
    at = calm(run)
    job = asked(run, tenant, at, expected="succeeded", due_at=at + 20)
    job.at = at + 20
    ended(run, job, "succeeded", result=claimed(run, job, None, effect=True))


def _dead(run: GoodRun, tenant: str) -> None:
    job = asked(run, tenant, calm(run), expected="failed", max_attempts=2)
    claimed(run, job, "attempt", wait=0.5)
    claimed(run, job, None)
    ended(run, job, "failed", reason="attempts_exhausted")


def _redriven(run: GoodRun, tenant: str) -> None:
    job = asked(run, tenant, calm(run), expected="failed")
    claimed(run, job, None)
    ended(run, job, "failed", reason="permanent_error", is_redriven=True)
    new = MadeJob(tenant, run.new_id(), job.at + 5)
    run.events.append(Redriven(new.at, tenant, job.id, new.id))
    run.final.redrives.append(RedriveRow(tenant, job.id, new.id))
    ended(run, new, "succeeded", result=claimed(run, new, None, effect=True))


def _cancelled(run: GoodRun, tenant: str) -> None:
    how = run.random.randrange(3)
    job = asked(run, tenant, calm(run), due_at=None if how else SECONDS)
    if how == 1:
        claimed(run, job, "attempt", wait=5.0)
        job.at -= 2.0
    if how == 2:
        claimed(run, job, None, seconds=2.0)
    run.events.append(Cancelled(job.at - 0.3, tenant, job.id))
    ended(run, job, "cancelled", held=how == 2)


def _lined_up(run: GoodRun, tenant: str) -> None:
    at = calm(run)
    line = f"line-{run.keys}"
    jobs = [asked(run, tenant, at + place, expected="succeeded", ordering_key=line) for place in range(3)]
    turn = at + 4
    for job in jobs:
        job.at = turn
        result = claimed(run, job, None, effect=True)
        turn = job.at
        ended(run, job, "succeeded", result=result)


def _lost(run: GoodRun, tenant: str) -> None:
    job = asked(run, tenant, troubled(run), expected="succeeded")
    # A zombie's effect, sometimes: its run had come that far.
    claimed(run, job, "loss", seconds=5.0, effect=run.random.random() < 0.5)
    claimed(run, job, "hand_back", runs=run.random.random() < 0.5)
    ended(run, job, "succeeded", result=claimed(run, job, None, effect=True))


def _convicted(run: GoodRun, tenant: str) -> None:
    job = asked(run, tenant, troubled(run), expected="succeeded")
    claimed(run, job, "loss")
    claimed(run, job, "loss")
    claimed(run, job, None)
    ended(run, job, "failed", reason="worker_lost")


def _refused(run: GoodRun, tenant: str) -> None:
    at = calm(run)
    run.keys += 1
    key = f"k{run.keys}"
    run.events += [Accepting(at, key, tenant, body_hash="b1"), Refused(at + 0.1, key, tenant, 429)]


def _vanished(run: GoodRun, tenant: str) -> None:
    """Nobody knows what became of it, and it has no job."""
    at = troubled(run)
    run.keys += 1
    run.events += [Accepting(at, f"k{run.keys}", tenant, body_hash="b1"), Unknown(at + 5, f"k{run.keys}", tenant)]


def _conflict(run: GoodRun, tenant: str) -> None:
    job = asked(run, tenant, calm(run), expected="succeeded")
    key = f"k{run.keys}"
    run.events += [
        Accepting(job.at, key, tenant, body_hash="b2"),
        Refused(job.at + 0.01, key, tenant, 422, "b2"),
    ]
    ended(run, job, "succeeded", result=claimed(run, job, None, effect=True))


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
