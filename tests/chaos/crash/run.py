"""Kills processes at every crash point, again and again, while a small mixed load runs, and checks what is left.

One lane for each service goes through its points at its own pace: it arms one, waits until a process has died of it,
and arms the next. After each round the load stops, everything comes to rest, and the checker reads all there is.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from barnabas.runtime.crash_points import CrashPoint
from tests.chaos.crash.load import Load
from tests.chaos.crash.pokes import POKES, Poking
from tests.chaos.crash.settling import judge, until_settled
from tests.chaos.crash.system import open_system
from tests.chaos.crash.tenants import open_tenants
from tests.chaos.history import history
from tests.chaos.ledger import Ledger
from tests.chaos.violation import Violation
from tests.support.receiver import open_receiver

# Who reaches the points of a part; those of `anyone` are in every service.
_LANES: Mapping[str, str] = {
    "ingest": "ingest",
    "intake": "ingest",
    "worker": "worker",
    "notifier": "notifier",
    "lease": "anyone",
    "database": "anyone",
    "kafka": "anyone",
}
_SCHEDULER = "retry-scheduler"
# Some points are behind a lease that has to run out first; and this machine may do other things, too.
_DEATH_SECONDS = 300.0
_POKE_SECONDS = 8.0
_LOOK_SECONDS = 0.02
# A process may pass a point some times before it dies there.
_PASSES_MAX = 3


@dataclass(slots=True)
class CrashRun:
    """What a run was like."""

    seed: int
    say_death: Callable[[str], None] = field(default=lambda _: None, repr=False)
    deaths: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    story: str = ""
    """Of one of the jobs to whom a promise was broken: all that is known of it."""
    wrong: list[str] = field(default_factory=list)
    """Answers of the API that may never be given, and errors of a service that nobody foresaw."""

    @property
    def is_good(self) -> bool:
        """Whether every promise held."""
        return not self.violations and not self.wrong


async def run_points(
    points: Sequence[CrashPoint],
    *,
    times: int,
    seed: int,
    round_times: int = 5,
    say: Callable[[str], None] = print,
    say_death: Callable[[str], None] = lambda _: None,
) -> CrashRun:
    """Die `times` times at each of these points, `round_times` between two checks; ends at the first bad check."""
    began = time.monotonic()
    run, choice = CrashRun(seed, say_death), random.Random(seed)
    resting = asyncio.Event()
    async with open_receiver() as receiver, open_system() as system:
        with Ledger(system.ledger / "runner.jsonl") as ledger:
            tenants = await open_tenants(system, receiver, ledger, choice, resting=resting)
            load = Load(system.api_url, system.kafka, tenants, ledger, choice)
            poking = Poking(system, load, ledger)
            for begin in range(0, times, round_times):
                await _round(run, points, min(round_times, times - begin), poking, load, choice, resting)
                await load.cancel_idle()
                rested = time.monotonic()
                async with system.database() as database:
                    await until_settled(system, database, keyed=load.keyed)
                    events, final, run.violations = await judge(system, database)
                run.story = next((history(each.job, events, final) for each in run.violations if each.job), "")
                run.jobs, run.wrong = len(final.ended), [*load.wrong, *system.mistakes]
                run.seconds = time.monotonic() - began
                say(
                    f"{run.deaths.total()} deaths, {run.jobs} jobs, {len(events)} events; at rest after"
                    f" {time.monotonic() - rested:.1f} s; {len(run.violations)} violations, {len(run.wrong)} wrong"
                )
                if not run.is_good:
                    break
    return run


async def _round(
    run: CrashRun,
    points: Sequence[CrashPoint],
    times: int,
    poking: Poking,
    load: Load,
    choice: random.Random,
    resting: asyncio.Event,
) -> None:
    """Every point, so many times; ends when the load has ended."""
    resting.clear()
    lanes = groupby(sorted(points, key=_lane), key=_lane)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(resting))
        async with asyncio.TaskGroup() as dying:
            for _, own in lanes:
                order = [point for point in own for _ in range(times)]
                choice.shuffle(order)
                dying.create_task(_die_of_each(run, order, poking, random.Random(choice.random())))
        resting.set()


async def _die_of_each(run: CrashRun, order: Sequence[CrashPoint], poking: Poking, choice: random.Random) -> None:
    for point in order:
        began = time.monotonic()
        # What has to be poked for is reached too seldom to be passed.
        await _die_of(point, poking, after=0 if point in POKES else choice.randrange(_PASSES_MAX))
        run.deaths[point] += 1
        run.say_death(f"{point} {time.monotonic() - began:.1f} s")


async def _die_of(point: CrashPoint, poking: Poking, *, after: int) -> None:
    arming = poking.system.arming
    arming.arm(point, after=after)
    began, poked = time.monotonic(), float("-inf")
    while arming.is_armed(point):
        if point in POKES and time.monotonic() - poked > _POKE_SECONDS:
            await POKES[point](poking)
            poked = time.monotonic()
        assert time.monotonic() - began < _DEATH_SECONDS, f"nobody came to {point} in {_DEATH_SECONDS:g} s"
        await asyncio.sleep(_LOOK_SECONDS)


def _lane(point: CrashPoint) -> str:
    return _LANES.get(point.partition(".")[0], _SCHEDULER)
