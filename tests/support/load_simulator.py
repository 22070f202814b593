"""A system of workers as a fluid, second by second, under a load of a seeded shape: what the scaling is tried on.

Workers take a while to start, crash, and become slow under poison; what the scaling sees of it comes every few seconds
and is a little wrong. Everything follows from the seed.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, pi, sin

from barnabas.domain.scaling import Observation, Reason, ScalingPolicy, begin, decide

LOOK_SECONDS = 5
START_SECONDS = 8
CRASH_SECONDS = 12
"""After a crash: until its leases are over and the next one runs."""

Load = Callable[[int], float]
"""Jobs that arrive in a second, of each second."""


@dataclass(slots=True)
class Scenario:
    """One seed's load and troubles."""

    seed: int
    shape: str
    load: Load
    rate: Callable[[int], float]
    """Jobs a second that one worker really does, of each second."""
    seconds: int = 3_600
    crashes_an_hour: float = 0.0
    noise: float = 0.02
    burst_seconds: int = 0
    """Above 0 slots all end together every so often: jobs of that length."""


@dataclass(slots=True)
class Change:
    """One change of the number of workers."""

    at: int
    before: int
    after: int
    reason: Reason
    backlog_before: int
    backlog: int


@dataclass(slots=True)
class Run:
    """What happened."""

    scenario: Scenario
    desired: list[int] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    """Since the beginning, at the end of each second."""
    served: list[float] = field(default_factory=list)

    def waits(self) -> list[int]:
        """For the jobs of each second, how many seconds the last of them waited; those still waiting are left out."""
        return _waits(self.arrived, self.served)

    def waits_with_all(self, workers: int) -> list[int]:
        """The same had so many workers run from the beginning: what no decision could have made shorter."""
        done, served = 0.0, []
        for second, arrived in enumerate(self.arrived):
            done = min(arrived, done + workers * self.scenario.rate(second))
            served.append(done)
        return _waits(self.arrived, served)

    def needed(self, policy: ScalingPolicy) -> list[int]:
        """The workers that each second's arrivals, averaged over a minute, would keep busy, within the bounds."""
        return [
            policy.clamp(
                ceil(
                    (self.arrived[second] - self.arrived[max(0, second - 60)])
                    / min(60, second + 1)
                    / self.scenario.rate(second)
                )
            )
            for second in range(len(self.arrived))
        ]


def simulate(scenario: Scenario, policy: ScalingPolicy) -> Run:
    """Live through it."""
    chance = random.Random(scenario.seed * 7919 + 1)
    run = Run(scenario)
    backlog = arrived = served = ended = left = 0.0
    starting: deque[int] = deque()
    running = desired = policy.workers_min
    state = begin(policy, workers=running, backlog=0, now=0.0)
    for second in range(scenario.seconds):
        while starting and starting[0] <= second:
            starting.popleft()
            running += 1
        if running and chance.random() < running * scenario.crashes_an_hour / 3_600:
            running -= 1
            starting.append(second + CRASH_SECONDS)
        come = max(0.0, scenario.load(second)) * chance.gauss(1.0, 0.1)
        go = min(backlog + come, running * scenario.rate(second) * max(0.0, chance.gauss(1.0, 0.1)))
        backlog, arrived, served = backlog + come - go, arrived + come, served + go
        ended, left = ended + go, left + go
        run.arrived.append(arrived)
        run.served.append(served)
        if second and second % LOOK_SECONDS == 0:
            # A few records are always on their way, and nothing is counted at exactly one moment.
            seen = int(max(0.0, backlog * chance.gauss(1.0, scenario.noise) + come * chance.random()))
            batch = scenario.burst_seconds
            told = 0.0 if batch and second % batch >= LOOK_SECONDS else ended
            observation = Observation(
                backlog=seen,
                ended=int(told * max(0.0, chance.gauss(1.0, scenario.noise))),
                left=int(left),
                workers=running,
            )
            ended, left = ended - told, 0.0
            before, backlog_before = desired, state.backlog
            state, desired, reason = decide(state, observation, float(second), policy=policy)
            if desired != before:
                run.changes.append(Change(second, before, desired, reason, backlog_before, seen))
            while running + len(starting) < desired:
                starting.append(second + START_SECONDS)
            while running + len(starting) > desired and starting:
                starting.pop()
            running = min(running, desired)
        run.desired.append(desired)
    return run


def scenario(seed: int, policy: ScalingPolicy) -> Scenario:
    """The load of this seed: its shape, its height against what the workers can do, and its troubles."""
    chance = random.Random(seed)
    shape = SHAPES[seed % len(SHAPES)]
    rate = 10 ** chance.uniform(0.3, 3.3)
    # What the highest number of workers does, with room for what piles up while they start.
    most = rate * policy.most * 0.7
    high = most * chance.uniform(0.1, 1.0)
    low = high * chance.uniform(0.0, 0.3)
    made = Scenario(seed, shape, _load(shape, chance, low, high), lambda _: rate, noise=chance.choice([0.0, 0.02, 0.1]))
    if shape == "poison":
        begins, slow = chance.randint(600, 1_800), rate * chance.uniform(0.2, 0.5)
        made.load = lambda _: min(high, slow * policy.most * 0.7)
        made.rate = lambda second: slow if begins <= second < begins + 900 else rate
    if shape == "crashes":
        made.crashes_an_hour = 6.0
    if shape == "long_jobs":
        made.burst_seconds = chance.choice([10, 15, 20])
    return made


SHAPES = (
    *("constant", "step", "step_down", "ramp", "bursts", "sine", "on_off", "spikes", "zero", "flood"),
    *("poison", "crashes", "long_jobs"),
)


def _load(shape: str, chance: random.Random, low: float, high: float) -> Load:
    at = chance.randint(300, 1_500)
    period = chance.choice([120, 300, 600, 1_200])
    starts = sorted(chance.sample(range(60, 3_000), 6))
    long = chance.randint(30, 240)
    loads: dict[str, Load] = {
        "step": lambda second: high if second >= at else low,
        "step_down": lambda second: low if second >= at else high,
        "ramp": lambda second: low + (high - low) * min(1.0, second / 1_800),
        "bursts": lambda second: high if any(start <= second < start + long for start in starts) else low,
        "sine": lambda second: low + (high - low) * (0.5 + 0.5 * sin(2 * pi * second / (2 * period))),
        "on_off": lambda second: high if second // period % 2 else 0.0,
        "spikes": lambda second: high * 5 if second in starts else low,
        "zero": lambda _: 0.0,
        # All at once, as much as the highest number of workers does in five minutes.
        "flood": lambda second: high * 300 if second == at else 0.0,
    }
    return loads.get(shape, lambda _: high)


def _waits(arrived: list[float], served: list[float]) -> list[int]:
    waits, done = [], 0
    for second, wanted in enumerate(arrived):
        done = max(done, second)
        while done < len(served) and served[done] < wanted - 1e-6:
            done += 1
        if done == len(served):
            break
        waits.append(done - second)
    return waits
