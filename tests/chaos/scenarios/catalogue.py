"""The rows of the reliability table: each fault, what has to hold, and the figures that it is judged by."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench.figures import Figure, shown
from tests.bench.targets import Target
from tests.chaos.scenarios import (
    clocks,
    disk_full,
    failover,
    kafka_down,
    kafka_wiped,
    leader_lost,
    overload,
    poison,
    postgres_killed,
    rebalances,
    restored,
    sigterm,
    upgrade,
    worker_killed,
    zombie,
)
from tests.chaos.scenarios.judging import at_least, at_most, exactly

Measure = Callable[[], Coroutine[Any, Any, list[Figure]]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault, and how it is measured."""

    name: str
    fault: str
    holds: str
    quick: Measure
    full: Measure
    targets: Sequence[Target]


def _kept(name: str) -> tuple[Target, ...]:
    """What holds whatever happens."""
    return exactly(f"{name}.lost", 0), exactly(f"{name}.twice", 0), exactly(f"{name}.failed", 0)


_ALL = (
    Scenario(
        "worker-killed",
        "a worker is killed",
        "its jobs run elsewhere within its lease (10 s) and 5 s",
        partial(worker_killed.measure, worker_killed.QUICK),
        partial(worker_killed.measure, worker_killed.FULL),
        (
            at_most("worker_killed.again", 15),
            exactly("worker_killed.charged", 0),
            exactly("worker_killed.failed", 0),
        ),
    ),
    Scenario(
        "zombie",
        "a worker stands still past its lease, or is cut off from the database, and comes back",
        "all of its late writes and events are refused and counted",
        partial(zombie.measure, zombie.QUICK),
        partial(zombie.measure, zombie.FULL),
        (
            *(
                exactly(f"zombie.{kind}.{figure}", value)
                for kind in zombie.KINDS
                for figure, value in (("refused", 100), ("changed", 0), ("twice", 0), ("failed", 0))
            ),
        ),
    ),
    Scenario(
        "postgres-killed",
        "Postgres is killed every 5 to 40 s",
        "only 503 at the door; the first job is accepted at most 10 s after Postgres is back",
        partial(postgres_killed.measure, postgres_killed.QUICK),
        partial(postgres_killed.measure, postgres_killed.FULL),
        (
            exactly("postgres_killed.other", 0),
            at_most("postgres_killed.recovery", 10),
            *_kept("postgres_killed"),
        ),
    ),
    Scenario(
        "failover",
        "a standby of Postgres is promoted while the old primary stays up, read-only",
        "writes flow at most 15 s after the promotion, without a restart",
        partial(failover.measure, failover.QUICK),
        partial(failover.measure, failover.FULL),
        (
            at_most("failover.writes", 15),
            at_most("failover.runs", 15),
            exactly("failover.restarts", 0),
            exactly("failover.other", 0),
            *_kept("failover"),
        ),
    ),
    Scenario(
        "kafka-down",
        "Kafka is gone for 10 minutes",
        "the door accepts all the while; what piled up is worked off at full rate",
        partial(kafka_down.measure, kafka_down.QUICK),
        partial(kafka_down.measure, kafka_down.FULL),
        (exactly("kafka_down.refused", 0), at_least("kafka_down.ratio", 80), *_kept("kafka_down")),
    ),
    Scenario(
        "kafka-wiped",
        "Kafka is killed and its data deleted while 100,000 jobs are open",
        "all are published again in at most 5 minutes, by themselves",
        partial(kafka_wiped.measure, kafka_wiped.QUICK),
        partial(kafka_wiped.measure, kafka_wiped.FULL),
        (at_most("kafka_wiped.again", 300), *_kept("kafka_wiped")),
    ),
    Scenario(
        "leader-lost",
        "the leader of three brokers is killed again and again, for 5 minutes",
        "only 202 or 503 at the door; what was acknowledged is kept, and no tenant waits more than 30 s for progress",
        partial(leader_lost.measure, leader_lost.QUICK),
        partial(leader_lost.measure, leader_lost.FULL),
        (
            exactly("leader_lost.other", 0),
            at_most("leader_lost.gap", 30),
            at_most("leader_lost.tenant_gap", 30),
            *_kept("leader_lost"),
        ),
    ),
    Scenario(
        "rebalances",
        "a member joins and leaves the workers' group every 3 s, for 5 minutes",
        "half of calm's throughput at least, no partition idle for more than 10 s, no running job cancelled",
        partial(rebalances.measure, rebalances.QUICK),
        partial(rebalances.measure, rebalances.FULL),
        (
            at_least("rebalances.ratio", 50),
            at_most("rebalances.idle", 10),
            exactly("rebalances.cancelled", 0),
            exactly("rebalances.missing", 0),
            exactly("rebalances.twice", 0),
            exactly("rebalances.failed", 0),
        ),
    ),
    Scenario(
        "poison",
        "a handler kills its process",
        "a dead letter after exactly 3 losses; a neighbour loses the one shared run at most, and p99 at most doubles",
        partial(poison.measure, poison.QUICK),
        partial(poison.measure, poison.FULL),
        tuple(
            target
            for kind, losses in (("alone", 0), ("shared", 1))
            for target in (
                exactly(f"poison.{kind}.wrong", 0),
                at_most(f"poison.{kind}.losses", losses),
                exactly(f"poison.{kind}.charged", 0),
                at_most(f"poison.{kind}.ratio", 2),
                *_kept(f"poison.{kind}"),
            )
        ),
    ),
    Scenario(
        "disk-full",
        "the disk of Postgres, then that of Kafka, is full, and has space again",
        "nothing is accepted that isn't kept; healed within 60 s",
        partial(disk_full.measure, disk_full.QUICK),
        partial(disk_full.measure, disk_full.FULL),
        tuple(
            target
            for store in disk_full.STORES
            for target in (
                exactly(f"disk_full.{store}.other", 0),
                at_most(f"disk_full.{store}.healed", 60),
                *_kept(f"disk_full.{store}"),
            )
        ),
    ),
    Scenario(
        "overload",
        "ten times more is asked for than can be done, for 2 minutes",
        "goodput of 90 % of capacity at least, memory flat within 10 %, refusals carry `Retry-After`",
        partial(overload.measure, overload.QUICK),
        partial(overload.measure, overload.FULL),
        (
            at_least("overload.workers.goodput", 90),
            at_most("overload.workers.memory", 10),
            exactly("overload.workers.lost", 0),
            at_least("overload.door.goodput", 90),
            at_most("overload.door.memory", 10),
            exactly("overload.door.no_retry_after", 0),
            exactly("overload.door.other", 0),
            exactly("overload.door.lost", 0),
        ),
    ),
    Scenario(
        "sigterm",
        "each service is told to stop under load",
        "exit code 0 within the deadline, nothing lost, no attempt charged",
        partial(sigterm.measure, sigterm.QUICK),
        partial(sigterm.measure, sigterm.FULL),
        (
            exactly("sigterm.unwell", 0),
            at_most("sigterm.seconds", sigterm.DEADLINE_SECONDS),
            exactly("sigterm.charged", 0),
            exactly("sigterm.undelivered", 0),
            *_kept("sigterm"),
        ),
    ),
    Scenario(
        "restored",
        "a dump is restored into another Postgres, beside an empty Kafka",
        "every open job goes on; nothing of Kafka is needed",
        partial(restored.measure, restored.QUICK),
        partial(restored.measure, restored.FULL),
        (
            exactly("restored.missing", 0),
            exactly("restored.vanished", 0),
            exactly("restored.undelivered", 0),
            *_kept("restored"),
        ),
    ),
    Scenario(
        "upgrade",
        "a new release replaces the last one, is taken back, and comes again",
        "no lock for more than 1 s; old and new programs side by side, at the cost of nobody",
        partial(upgrade.measure, upgrade.QUICK),
        partial(upgrade.measure, upgrade.FULL),
        (
            exactly("upgrade.other", 0),
            at_most("upgrade.silence", 1),
            exactly("upgrade.charged", 0),
            exactly("upgrade.losses", 0),
            exactly("upgrade.told_twice", 0),
            exactly("upgrade.undelivered", 0),
            exactly("upgrade.webhooks", 0),
            exactly("upgrade.unwell", 0),
            exactly("upgrade.errors", 0),
            at_most("upgrade.lock", 1),
            at_most("upgrade.accept", 1),
            exactly("upgrade.undone", 0),
            *_kept("upgrade"),
        ),
    ),
    Scenario(
        "clocks",
        "the clock of one process after the other is stepped by ten minutes, while another's drifts",
        "no run before it is due, none taken for lost, no signature refused",
        partial(clocks.measure, clocks.QUICK),
        partial(clocks.measure, clocks.FULL),
        (
            at_least("clocks.stamped", 1),
            exactly("clocks.early", 0),
            at_most("clocks.late", 15),
            at_most("clocks.hops", 10),
            exactly("clocks.disordered", 0),
            exactly("clocks.losses", 0),
            exactly("clocks.expired", 0),
            exactly("clocks.charged", 0),
            exactly("clocks.ended", 0),
            exactly("clocks.other", 0),
            *_kept("clocks"),
            exactly("clocks.refused", 0),
            exactly("clocks.undelivered", 0),
            at_most("clocks.idle", 15),
        ),
    ),
)

SCENARIOS = {scenario.name: scenario for scenario in _ALL}
"""By name, in the order of the page."""


def values(name: str, figures: Sequence[Figure]) -> dict[str, float]:
    """A run's figures by name, shown on the way; fails when one that has a bound is missing."""
    for figure in figures:
        print(f"{figure.name}: {shown(figure.value)} {figure.unit}")
    found = {figure.name: figure.value for figure in figures}
    missing = {target.figure for target in SCENARIOS[name].targets} - found.keys()
    assert not missing, f"not measured: {missing}"
    return found
