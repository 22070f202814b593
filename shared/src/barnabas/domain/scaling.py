"""How many workers there should be, from what waits, what ended and how many there are.

Used by the leading retry-scheduler, whose answer is a metric for an autoscaler and for the local stack's supervisor.
Nothing here reads a clock: the caller passes `now`, so a test can live through a day in a millisecond.

What follows from the sources: the number of replicas is proportional to a measured value over its target, only the
highest proposal of a window may take replicas away, a small difference changes nothing (Kubernetes, "Horizontal Pod
Autoscaling": algorithm details, stabilization window, tolerance); a queue is worked off within a time to be named, so
the backlog that a worker may have is that time by its rate (AWS, "Scaling policy based on Amazon SQS": acceptable
backlog per instance); only busy workers show what they can do (Kalavri et al., "Three steps is all you need: fast,
accurate, automatic scaling decisions for distributed streaming dataflows", OSDI 2018: true and observed rates).
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from barnabas.errors import RejectedError

# What workers are worth until they were seen busy weighs as much as ten seconds of one that is.
_PRIOR_WORKER_SECONDS: Final = 10.0
# After a minute of being busy what was learned before counts half: a new mix of jobs is known within two.
_LEARNING_HALF_LIFE_SECONDS: Final = 60.0
# What is done without a backlog, smoothed so that one burst of long jobs that end together shows nothing.
_FLOW_HALF_LIFE_SECONDS: Final = 30.0
# A rate of nothing would ask for infinitely many workers: one job an hour is the least that one is worth.
_RATE_MIN: Final = 1 / 3_600
# Records on their way from the producer to the claim's commit are no backlog; a few commits take less than two seconds.
_IN_FLIGHT_SECONDS: Final = 2.0
# Jobs that leave the backlog so much faster than jobs end are not run: they are parked, or fill slots that are free.
_LEAVING_FACTOR: Final = 2.0
# The share of what workers can do that they are planned to do: near 1 every burst would wait.
_UTILISATION: Final = 0.8
# As the tolerance of Kubernetes: a tenth of a worker is no reason for a change.
_TOLERANCE: Final = 0.1
# A trial with fewer workers comes after so long a calm; with a number that failed before, after ever longer ones.
_TRIAL_SECONDS: Final = 900.0
_FAILED_TRIAL_SECONDS: Final = 1_800.0
_TRIAL_SECONDS_MAX: Final = 8 * 3_600.0
# Counts of a shorter time are noise.
_SECONDS_MIN: Final = 0.1


class Reason(StrEnum):
    """Why the number is what it is."""

    ADOPTED = "adopted"
    """The first look: as many as there are."""
    STEADY = "steady"
    """As many as are needed."""
    ARRIVALS = "arrivals"
    """Raised: more arrives than they can do."""
    BACKLOG = "backlog"
    """Raised: what waits has to be gone within the target."""
    MAXIMUM = "maximum"
    """More would be needed than are allowed."""
    WARMING = "warming"
    """More are needed, but the last ones have only just been asked for."""
    DRAINING = "draining"
    """Fewer would do, but something waits still."""
    HOLDING = "holding"
    """Fewer would do now, but more were needed within the window."""
    QUIET = "quiet"
    """Lowered: fewer have been enough for the whole window."""
    TRIAL = "trial"
    """Lowered for a trial: nothing has waited for long, so fewer may do."""


class BadScalingPolicyError(RejectedError):
    """The settings of the scaling contradict each other."""

    code = "bad_scaling_policy"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """The bounds, and how fast."""

    workers_min: int = 1
    workers_max: int = 24
    partitions: int = 24
    """More workers than partitions are idle."""
    drain_seconds: float = 60.0
    """Within how long a backlog should be gone once enough workers run."""
    up_seconds: float = 10.0
    """The least time between two raises: about what a worker takes to start."""
    down_seconds: float = 300.0
    """How long fewer must have been enough before one goes; the next goes a fifth of it later."""
    default_rate: float = 50.0
    """Jobs a second that a worker is taken to do before one was seen busy."""

    def __post_init__(self) -> None:
        """Refuse what can't be kept."""
        if not 1 <= self.workers_min <= self.workers_max:
            raise BadScalingPolicyError("workers_min", "must be at least 1 and at most workers_max")
        if self.workers_min > self.partitions:
            raise BadScalingPolicyError("workers_min", f"must be at most {self.partitions}, the number of partitions")
        for field in ("drain_seconds", "up_seconds", "down_seconds", "default_rate"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise BadScalingPolicyError(field, "must be above 0")

    @property
    def most(self) -> int:
        """The highest number that may be asked for."""
        return min(self.workers_max, self.partitions)

    def clamp(self, workers: float) -> int:
        """The nearest number of workers that is allowed."""
        return int(min(self.most, max(self.workers_min, workers)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen; the counts are since the observation before.

    `backlog` counts jobs that could start if a slot were free. Jobs that rest in a delay tier, or are parked at a
    limit, don't belong to it: no worker could run them.
    """

    backlog: int
    ended: int
    left: int
    """Jobs that left the backlog, whether they were started, parked or dropped."""
    workers: int
    """Those that are alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingState:
    """What is remembered from one decision to the next."""

    at: float
    desired: int
    rate_jobs: float
    """Jobs that busy workers ended, older ones counting less."""
    rate_seconds: float
    """The seconds of busy workers in which they did."""
    needed: float = 0.0
    """Workers that the last observation asked for, unrounded and without bounds."""
    backlog: int = 0
    waits: bool = False
    """Whether more was waiting than is always on its way."""
    workers: int = 0
    growth: float = 0.0
    """By how many jobs a second the backlog grew, last time."""
    flow: float | None = None
    """Jobs that end in a second, smoothed; None before the first."""
    peaks: tuple[tuple[float, float], ...] = ()
    """(when, needed) of the window: each higher than all after it."""
    raised_at: float
    lowered_at: float
    busy_at: float
    """When something last waited."""
    in_trial: bool = False
    too_few: int = 0
    """The number with which the last trial failed."""
    trial_seconds: float = _FAILED_TRIAL_SECONDS
    """How long a calm it takes to try that number again."""

    @property
    def rate(self) -> float:
        """Jobs a second that one worker does."""
        return max(_RATE_MIN, self.rate_jobs / self.rate_seconds)


def begin(policy: ScalingPolicy, *, workers: int, backlog: int, now: float) -> ScalingState:
    """The state after the first look: as many workers as there are, so that a new leader changes nothing by itself."""
    return ScalingState(
        at=now,
        desired=policy.clamp(workers),
        rate_jobs=policy.default_rate * _PRIOR_WORKER_SECONDS,
        rate_seconds=_PRIOR_WORKER_SECONDS,
        backlog=backlog,
        workers=workers,
        raised_at=-math.inf,
        lowered_at=now,
        busy_at=now,
    )


def decide(
    state: ScalingState, observation: Observation, now: float, *, policy: ScalingPolicy
) -> tuple[ScalingState, int, Reason]:
    """How many workers there should be now, and why. Always within the policy's bounds.

    Call it every few seconds, sooner it changes nothing; `now` is of any clock that never goes back.
    """
    seconds = now - state.at
    if seconds < _SECONDS_MIN:
        return state, state.desired, Reason.STEADY
    state = _learn(state, observation, now, seconds)
    seen = _need(state, observation, seconds, policy)
    state = replace(
        state,
        at=now,
        needed=seen,
        backlog=observation.backlog,
        growth=(observation.backlog - state.backlog) / seconds,
        workers=observation.workers,
        peaks=_with_peak(state.peaks, seen, now, policy.down_seconds),
    )
    if _ceil(seen) > state.desired and state.waits:
        return _raise(state, now, policy)
    return _lower(state, now, policy)


def _learn(state: ScalingState, observation: Observation, now: float, seconds: float) -> ScalingState:
    """Busy workers show what they are worth; those without a backlog, that they are worth at least what they do."""
    throughput = observation.ended / seconds
    flow = throughput
    if state.flow is not None:
        kept = math.exp2(-seconds / _FLOW_HALF_LIFE_SECONDS)
        flow = state.flow * kept + throughput * (1 - kept)
    # By the smoothed one, or an interval in which long jobs end together would never count as a busy one.
    waits = observation.backlog > max(observation.workers, 1, _IN_FLIGHT_SECONDS * flow)
    workers = (state.workers + observation.workers) / 2
    if waits and state.waits:
        state = _learned(state, jobs=observation.ended, worker_seconds=workers * seconds, seconds=seconds)
    elif workers and flow > workers * state.rate:
        state = _learned(state, jobs=flow * seconds, worker_seconds=workers * seconds, seconds=seconds)
    return replace(state, flow=flow, waits=waits, busy_at=now if waits else state.busy_at)


def _learned(state: ScalingState, *, jobs: float, worker_seconds: float, seconds: float) -> ScalingState:
    if not worker_seconds:
        return state
    kept = math.exp2(-seconds / _LEARNING_HALF_LIFE_SECONDS)
    return replace(
        state, rate_jobs=state.rate_jobs * kept + jobs, rate_seconds=state.rate_seconds * kept + worker_seconds
    )


def _need(state: ScalingState, observation: Observation, seconds: float, policy: ScalingPolicy) -> float:
    """Workers for what they do now, for what comes on top of it, and for what waits."""
    rate = state.rate
    # Long jobs end in bursts: workers that are busy do, in the long run, what they were seen to do.
    assert state.flow is not None
    working = min(state.flow, observation.workers * rate) / rate
    if not state.waits:
        return working / _UTILISATION
    leaving = observation.left / seconds / max(1, observation.workers)
    if leaving > _LEAVING_FACTOR * rate:
        rate = leaving
    # Twice in a row, or it is a burst: that is seen in what waits.
    growth = max(0.0, min(state.growth, (observation.backlog - state.backlog) / seconds))
    return (working + growth / rate) / _UTILISATION + observation.backlog / (rate * policy.drain_seconds)


def _raise(state: ScalingState, now: float, policy: ScalingPolicy) -> tuple[ScalingState, int, Reason]:
    if state.desired >= policy.most:
        return state, state.desired, Reason.MAXIMUM
    if now - state.raised_at < policy.up_seconds:
        return state, state.desired, Reason.WARMING
    reason = Reason.ARRIVALS if state.growth > 0 else Reason.BACKLOG
    if state.in_trial:
        longer = min(_TRIAL_SECONDS_MAX, 2 * state.trial_seconds)
        state = replace(state, in_trial=False, too_few=state.desired, trial_seconds=longer)
    state = replace(state, desired=policy.clamp(_ceil(state.needed)), raised_at=now)
    return state, state.desired, reason


def _lower(state: ScalingState, now: float, policy: ScalingPolicy) -> tuple[ScalingState, int, Reason]:
    if state.desired <= policy.workers_min:
        return state, state.desired, Reason.STEADY
    # The first of the peaks is the highest.
    enough = policy.clamp(_ceil(state.peaks[0][1]))
    if state.waits or (state.backlog and state.growth > 0):
        return state, state.desired, Reason.DRAINING if _ceil(state.needed) < state.desired else Reason.STEADY
    if enough < state.desired:
        if now - max(state.raised_at, state.busy_at) < policy.down_seconds or now - state.lowered_at < (
            policy.down_seconds / 5
        ):
            return state, state.desired, Reason.HOLDING
        # Half of the way at a time: far too many are fewer soon, and the last ones go one by one.
        desired = state.desired - max(1, (state.desired - enough) // 2)
        return replace(state, desired=desired, lowered_at=now), desired, Reason.QUIET
    return _try_fewer(state, now, policy)


def _try_fewer(state: ScalingState, now: float, policy: ScalingPolicy) -> tuple[ScalingState, int, Reason]:
    """Workers that are never busy don't show what they can do: after a long calm some are taken away to see."""
    desired = max(policy.workers_min, state.desired - max(1, state.desired // 4))
    wait = max(_TRIAL_SECONDS, policy.down_seconds)
    if desired <= state.too_few:
        if state.desired - 1 > state.too_few:
            desired = state.too_few + 1
        else:
            wait = max(state.trial_seconds, policy.down_seconds)
    if now - max(state.raised_at, state.lowered_at, state.busy_at) < wait:
        return state, state.desired, Reason.STEADY
    if state.in_trial and state.desired <= state.too_few:
        # What had failed goes well now.
        state = replace(state, too_few=0, trial_seconds=_FAILED_TRIAL_SECONDS)
    return replace(state, desired=desired, lowered_at=now, in_trial=True), desired, Reason.TRIAL


def _with_peak(
    peaks: tuple[tuple[float, float], ...], needed: float, now: float, window_seconds: float
) -> tuple[tuple[float, float], ...]:
    kept = tuple(peak for peak in peaks if peak[1] > needed and now - peak[0] <= window_seconds)
    return (*kept, (now, needed))


def _ceil(needed: float) -> int:
    return math.ceil(needed - _TOLERANCE)
