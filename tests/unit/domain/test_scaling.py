"""The number of workers: within its bounds, up fast, down slowly, and on 200 loads neither late nor restless."""

import math
from functools import cache
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.scaling import (
    BadScalingPolicyError,
    Observation,
    Reason,
    ScalingPolicy,
    ScalingState,
    begin,
    decide,
)
from tests.support.load_simulator import LOOK_SECONDS, START_SECONDS, Run, scenario, simulate

POLICY = ScalingPolicy(workers_max=8)
SEEDS = 200
LOOK = 5.0


def seen(*, backlog: int = 0, ended: int = 0, left: int | None = None, workers: int = 1) -> Observation:
    return Observation(backlog=backlog, ended=ended, left=ended if left is None else left, workers=workers)


def live(
    observations: list[Observation], *, policy: ScalingPolicy = POLICY, workers: int = 1
) -> tuple[ScalingState, list[tuple[int, Reason]]]:
    """Each observation 5 s after the one before."""
    state, told = begin(policy, workers=workers, backlog=0, now=0.0), []
    for number, observation in enumerate(observations, start=1):
        state, desired, reason = decide(state, observation, number * LOOK, policy=policy)
        told.append((desired, reason))
    return state, told


def numbers(told: list[tuple[int, Reason]]) -> list[int]:
    return [desired for desired, _ in told]


# One worker that is kept busy at 20 jobs a second, while 100 arrive.
OVERLOADED = [seen(backlog=400 * number, ended=100) for number in range(1, 7)]


def test_the_first_look_changes_nothing() -> None:
    assert [begin(POLICY, workers=count, backlog=10**6, now=0.0).desired for count in (0, 3, 99)] == [1, 3, 8]


def test_more_workers_are_asked_for_within_two_looks_when_more_arrives_than_they_do() -> None:
    _, told = live(OVERLOADED)

    assert max(numbers(told[:3])) >= 3
    assert told[1][1] is Reason.ARRIVALS or told[2][1] is Reason.ARRIVALS


def test_the_rate_is_what_busy_workers_were_seen_to_do() -> None:
    state, _ = live([seen(backlog=10_000, ended=300, workers=2) for _ in range(60)], workers=2)

    assert state.rate == pytest.approx(30, rel=0.02)


def test_idle_workers_teach_nothing_about_what_they_could_do() -> None:
    state, told = live([seen(ended=5, workers=3) for _ in range(100)], workers=3)

    assert state.rate == POLICY.default_rate
    assert told[-1] == (1, Reason.STEADY)


def test_workers_without_a_backlog_are_worth_at_least_what_they_do() -> None:
    state, told = live([seen(ended=4_000, workers=1) for _ in range(60)])

    assert state.rate == pytest.approx(800, rel=0.05)
    assert set(numbers(told)) == {1}


def test_a_backlog_asks_for_as_many_as_have_it_gone_within_the_target() -> None:
    known, _ = live([seen(backlog=500, ended=500) for _ in range(60)])
    _, desired, reason = decide(known, seen(backlog=24_000, ended=500), 61 * LOOK, policy=POLICY)

    # 24,000 within 60 s at 100 a second are 4, beside the one that goes on with what arrives.
    assert (desired, reason) == (6, Reason.ARRIVALS)


def test_a_flood_that_is_parked_as_fast_as_it_is_read_asks_for_nobody() -> None:
    looks = [seen(backlog=backlog, ended=5, left=40_000) for backlog in (60_000, 20_000, 0)]
    _, told = live([seen(ended=5), *looks, *([seen(ended=5)] * 5)])

    assert max(numbers(told)) <= 2


def test_records_on_their_way_are_no_backlog() -> None:
    _, told = live([seen(backlog=700, ended=2_500) for _ in range(50)])

    assert set(numbers(told)) == {1}


def test_a_second_raise_waits_for_the_workers_of_the_first() -> None:
    policy = ScalingPolicy(workers_max=24, up_seconds=30.0)
    _, told = live([seen(backlog=1_000 * 2**number, ended=100) for number in range(1, 7)], policy=policy)

    first = next(at for at, (desired, _) in enumerate(told) if desired > 1)
    assert {reason for _, reason in told[first + 1 : first + 6]} == {Reason.WARMING}


def test_at_the_maximum_it_says_so() -> None:
    _, told = live([seen(backlog=10**6, ended=100) for _ in range(5)])

    assert told[-1] == (8, Reason.MAXIMUM)


def test_no_worker_goes_before_fewer_were_enough_for_the_whole_window() -> None:
    _, told = live([*OVERLOADED, *([seen(ended=20, workers=8)] * 120)])
    peak = max(numbers(told))
    last_busy = len(OVERLOADED)

    quiet = int(POLICY.down_seconds / LOOK)
    assert set(numbers(told[last_busy : last_busy + quiet - 1])) == {peak}
    assert told[last_busy + quiet][1] is Reason.QUIET
    assert told[-1][0] == 1
    steps = [before - after for (before, _), (after, _) in pairwise(told) if before != after]
    assert all(step <= math.ceil((peak - 1) / 2) for step in steps)


def test_nobody_goes_while_something_waits() -> None:
    # Eight workers of 100 a second each, and 10 more come: what waits shrinks for hours, and eight aren't needed.
    shrinking = [seen(backlog=40_000 - 50 * number, ended=4_000, workers=8) for number in range(300)]
    calm = [seen(backlog=40, ended=1_000, workers=8)] * 100
    _, told = live([*shrinking, *calm], workers=8, policy=ScalingPolicy(workers_max=20, drain_seconds=600.0))

    assert min(numbers(told[:355])) >= 8
    assert told[-1][0] < 8


def test_one_job_that_waits_and_then_two_hold_a_worker_back() -> None:
    _, told = live([*OVERLOADED, *([seen(ended=20, workers=8)] * 58)])
    state, _ = live([*OVERLOADED, *([seen(ended=20, workers=8)] * 60)])
    _, desired, reason = decide(state, seen(backlog=2, ended=20, workers=8), 67 * LOOK, policy=POLICY)

    assert desired == told[-1][0]
    assert reason is Reason.DRAINING


def test_after_a_long_calm_it_tries_with_fewer_and_takes_longer_to_try_again_when_that_fails() -> None:
    # Five can do much more than comes; three can just do it; two can't. Without a backlog nobody knows.
    state = begin(POLICY, workers=5, backlog=0, now=0.0)
    trials = []
    for number in range(1, 6_000):
        able = 140 * 5 * state.desired
        backlog = max(0, state.backlog + 2_000 - able)
        ended = min(state.backlog + 2_000, able)
        observation = seen(backlog=backlog, ended=ended, workers=state.desired)
        state, _, reason = decide(state, observation, number * LOOK, policy=POLICY)
        if reason is Reason.TRIAL:
            trials.append((number * LOOK, state.desired))
    with_two = [at for at, desired in trials if desired == 2]
    rests = [after - before for before, after in pairwise(with_two)]

    assert state.desired in {3, 4}
    assert len(rests) >= 2
    assert all(longer > 1.4 * shorter for shorter, longer in pairwise(rests))


@pytest.mark.parametrize(
    "given_",
    [
        {"workers_min": 0},
        {"workers_min": 5, "workers_max": 4},
        {"workers_min": 30, "workers_max": 40},
        {"drain_seconds": 0.0},
        {"down_seconds": math.inf},
        {"default_rate": math.nan},
    ],
)
def test_settings_that_contradict_are_refused(given_: dict[str, float]) -> None:
    with pytest.raises(BadScalingPolicyError):
        ScalingPolicy(**given_)  # type: ignore[arg-type] # wrong on purpose


def test_more_than_the_partitions_are_never_asked_for() -> None:
    policy = ScalingPolicy(workers_max=100)

    assert (policy.most, policy.clamp(1_000)) == (24, 24)


observations = st.builds(
    Observation,
    backlog=st.integers(0, 10**7),
    ended=st.integers(0, 10**6),
    left=st.integers(0, 10**6),
    workers=st.integers(0, 60),
)


@given(
    st.lists(st.tuples(observations, st.floats(0, 400)), max_size=60),
    st.integers(1, 24),
    st.integers(0, 40),
    st.integers(0, 50),
)
def test_whatever_is_seen_it_stays_within_its_bounds_and_never_takes_workers_from_a_growing_backlog(
    looks: list[tuple[Observation, float]], least: int, more: int, workers: int
) -> None:
    policy = ScalingPolicy(workers_min=least, workers_max=least + more)
    state, now = begin(policy, workers=workers, backlog=0, now=0.0), 0.0

    for observation, seconds in looks:
        before, now = state, now + seconds
        state, desired, _ = decide(state, observation, now, policy=policy)
        assert least <= desired <= min(24, least + more)
        assert desired == state.desired
        assert math.isfinite(state.rate)
        assert state.rate > 0
        if desired < before.desired:
            assert observation.backlog <= before.backlog
            assert now - max(before.raised_at, before.busy_at) >= policy.down_seconds
        if before.desired < desired:
            assert now - before.raised_at >= policy.up_seconds
        assert len(state.peaks) <= policy.down_seconds + 2


@given(observations, st.floats(0, 1_000), st.integers(0, 30))
def test_the_same_observation_always_gets_the_same_answer(observation: Observation, now: float, workers: int) -> None:
    state = begin(POLICY, workers=workers, backlog=0, now=0.0)

    assert decide(state, observation, now, policy=POLICY) == decide(state, observation, now, policy=POLICY)


# On 200 loads -------------------------------------------------------------------------------------------------------


def policy_of(seed: int) -> ScalingPolicy:
    return ScalingPolicy(workers_max=Random(seed).choice([4, 8, 24]))


@cache
def runs() -> dict[int, Run]:
    return {seed: simulate(scenario(seed, policy_of(seed)), policy_of(seed)) for seed in range(SEEDS)}


def test_on_every_load_it_stays_within_its_bounds() -> None:
    assert all(set(run.desired) <= set(range(1, policy_of(seed).most + 1)) for seed, run in runs().items())


def test_on_every_load_what_waits_is_gone_within_the_target_and_a_start_once_the_workers_can() -> None:
    # The target, a start, the look before and the one after, and a raise that had to wait for the one before it.
    allowed = POLICY.drain_seconds + START_SECONDS + 2 * LOOK_SECONDS + POLICY.up_seconds
    late = {}
    for seed, run in runs().items():
        waits, least = run.waits(), run.waits_with_all(policy_of(seed).most)
        late[seed] = max((wait - best for wait, best in zip(waits, least, strict=False)), default=0)

    assert {seed: wait for seed, wait in late.items() if wait > allowed} == {}
    # And most have theirs much sooner.
    assert sorted(late.values())[SEEDS // 2] <= allowed / 4


def test_on_every_load_nothing_is_left_at_the_end() -> None:
    assert all(run.arrived[-1] - run.served[-1] <= 0.1 * run.arrived[-1] for run in runs().values())


def test_on_every_load_no_worker_is_taken_from_a_growing_backlog() -> None:
    taken = [
        (seed, change)
        for seed, run in runs().items()
        for change in run.changes
        if change.after < change.before and change.backlog > change.backlog_before
    ]

    assert taken == []


def test_a_constant_load_is_left_alone_once_it_is_known() -> None:
    # The first quarter of an hour is for learning; then a trial with fewer, and back, is all there may be.
    restless = {
        seed: len(late)
        for seed, run in runs().items()
        if run.scenario.shape in {"constant", "zero", "step", "step_down"}
        and len(late := [change for change in run.changes if change.at > 2_400]) > 4
    }

    assert restless == {}


def test_on_every_load_it_turns_round_only_a_few_times_an_hour() -> None:
    def turns(run: Run) -> int:
        ups = [change.after > change.before for change in run.changes]
        return sum(before != after for before, after in pairwise(ups))

    assert {seed: count for seed, run in runs().items() if (count := turns(run)) > 10} == {}


def test_on_every_load_few_workers_are_idle() -> None:
    surplus, needed = 0.0, 0.0
    for seed, run in runs().items():
        policy = policy_of(seed)
        wanted = run.needed(policy)
        # Down slowly is what was asked for: what was needed within the window and a little more is not idle.
        window = int(policy.down_seconds + 180)
        kept = [max(wanted[max(0, at - window) : at + 1 : 20]) for at in range(0, len(wanted), 60)]
        asked = run.desired[::60]
        surplus += (sum(asked) - sum(kept)) / len(kept)
        needed += sum(kept) / len(kept)
        assert sum(asked) <= 2.0 * sum(kept) + len(kept), seed

    assert surplus <= 0.3 * needed
