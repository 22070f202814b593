"""The checker finds nothing in good runs, and every one of the mutations of a good run."""

import time
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from tests.chaos.checker import INVARIANTS, Rules, Violation, check, history, tally
from tests.chaos.final import Final
from tests.chaos.ledger import (
    Accepted,
    Accepting,
    Effect,
    Event,
    FaultBegan,
    FaultEnded,
    Received,
    Refused,
    Unknown,
)
from tests.chaos.mutation import Mutation
from tests.chaos.mutations import MUTATIONS
from tests.unit.chaos.good_run import good_run

_SEEDS = range(5)


@pytest.mark.parametrize("seed", range(40))
def test_a_good_run_has_no_violation(seed: int) -> None:
    run = good_run(seed)

    assert check(run.events, run.final) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_is_noticed_by_the_invariant_that_it_breaks(mutation: Mutation) -> None:
    for seed in _SEEDS:
        run = good_run(seed)
        events, final = mutation.apply(run.events, run.final, seed)

        found = check(events, final)

        assert mutation.invariant in {violation.invariant for violation in found}, f"seed {seed}: {found}"


def test_every_invariant_has_mutations_and_all_have_names_of_their_own() -> None:
    counts = Counter(mutation.invariant for mutation in MUTATIONS)

    assert set(counts) == set(INVARIANTS) == set(range(1, 13))
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 30


def test_a_mutation_leaves_the_run_that_it_was_made_from_as_it_was() -> None:
    run = good_run(1)

    for mutation in MUTATIONS:
        mutation.apply(run.events, run.final, 1)

    assert check(run.events, run.final) == []


def test_an_empty_run_has_no_violation() -> None:
    assert check([], Final()) == []


@pytest.mark.parametrize(
    ("answers", "is_lost"),
    [
        ([Accepted(2.0, "k", "t", "j")], True),
        ([Accepted(2.0, "k", "t", "")], True),
        ([Unknown(2.0, "k", "t")], False),
        ([Refused(2.0, "k", "t", 503)], False),
        ([Refused(2.0, "k", "t", 429)], False),
        ([], False),
    ],
)
def test_only_an_accepted_submission_must_have_a_job(answers: list[Event], is_lost: bool) -> None:
    found = check([Accepting(1.0, "k", "t"), *answers], Final())

    assert [violation.invariant for violation in found if violation.invariant == 1] == [1] * is_lost


def test_an_unanswered_submission_may_have_a_job_and_a_clearly_refused_one_may_not() -> None:
    run = good_run(3)
    wish = next(one for one in run.events if isinstance(one, Accepted) and one.job)
    answers = [one for one in run.events if getattr(one, "key", None) == wish.key and not isinstance(one, Accepting)]
    unanswered = [one for one in run.events if one not in answers]

    assert check(unanswered, run.final) == []

    sent = sum(isinstance(one, Accepting) and one.key == wish.key for one in run.events)
    refused = sorted([*unanswered, *[Refused(wish.at, wish.key, wish.tenant, 400)] * sent], key=lambda one: one.at)
    assert {violation.invariant for violation in check(refused, run.final)} >= {1}


def test_a_second_effect_is_allowed_beside_a_fault_and_nowhere_else() -> None:
    run = good_run(5)
    row = next(row for row in run.final.ended if row.state == "succeeded" and row.fence == 1 and row.type == "effect")
    effect = next(one for one in run.events if isinstance(one, Effect) and one.job == row.job)
    twice = sorted([*run.events, effect], key=lambda one: one.at)
    excused = sorted(
        [*twice, FaultBegan(effect.at + 5, "kill", "worker", 99), FaultEnded(effect.at + 6, 99)], key=lambda one: one.at
    )

    assert {violation.invariant for violation in check(twice, run.final)} == {6}
    assert check(excused, run.final) == []
    assert {violation.invariant for violation in check(excused, run.final, Rules(fault_window_seconds=1))} >= {6}


def test_a_fault_without_an_end_lasts_to_the_end_of_the_run() -> None:
    run = good_run(6)
    mutation = next(one for one in MUTATIONS if one.name == "call_again_in_calm")
    events, final = mutation.apply(run.events, run.final, 6)

    assert check(events, final) != []
    assert check([FaultBegan(0.0, "stop", "notifier", 98), *events], final) == []


def test_what_ended_before_kafka_was_wiped_needs_no_record() -> None:
    run = good_run(7)
    wiped_at = 500.0
    assert run.final.events is not None
    assert run.final.dead_jobs is not None
    assert run.final.dead_deliveries is not None
    old = {row.event_id for row in run.final.ended if row.finished_at < wiped_at}
    for records in (run.final.events, run.final.dead_jobs, run.final.dead_deliveries):
        kept: list[Any] = [record for record in records if record.event_id not in old]
        records[:] = kept
    run.final.partitions.clear()
    wipe: list[Event] = [FaultBegan(wiped_at, "kafka_wiped", "kafka", 97), FaultEnded(wiped_at + 1, 97)]

    assert {violation.invariant for violation in check(run.events, run.final)} == {7, 10}
    assert check(sorted([*run.events, *wipe], key=lambda one: one.at), run.final) == []


def test_topics_that_nobody_read_are_not_judged() -> None:
    run = good_run(8)
    unread = replace(run.final, events=None, dead_jobs=None, dead_deliveries=None)

    assert check(run.events, unread) == []


def test_lateness_is_limited_only_where_a_limit_is_set() -> None:
    run = good_run(9)
    late = tally(run.events, run.final).lateness_max

    assert 0 < late < 1
    assert {violation.invariant for violation in check(run.events, run.final, Rules(lateness_seconds_max=0.05))} == {9}
    assert check(run.events, run.final, Rules(lateness_seconds_max=1.0)) == []


def test_a_tally_counts_what_came_more_than_once() -> None:
    run = good_run(10)

    told = tally(run.events, run.final)

    assert told.jobs == len(run.final.ended)
    assert told.faults == 3
    assert told.extra_runs > 0
    assert 0 < told.extra_runs_share < 1
    assert told.extra_effects > 0
    assert told.repeated_events == told.events - told.jobs
    assert told.webhooks == sum(isinstance(event, Received) for event in run.events)
    assert told.repeated_webhooks > 0


def test_the_history_of_a_job_tells_all_of_it_in_order_with_the_faults_around() -> None:
    run = good_run(11)
    job = next(row.job for row in run.final.attempts if row.kind == "loss")

    lines = history(job, run.events, run.final).splitlines()

    assert lines[0].startswith(f"job {job} of tenant ")
    for word in ("Accepting", "Began", "AttemptRow", "kind=loss", "--- ", "EndedJob", "EventRecord", "KeyRow"):
        assert any(word in line for line in lines), word
    times = [float(line.split(" s ")[0]) for line in lines[1:] if " s  " in line]
    assert times == sorted(times)


def test_a_violation_says_whose_it_is() -> None:
    assert str(Violation(3, "the job has 2 rows", "t", "j")) == "invariant 3: the job has 2 rows (tenant t, job j)"
    assert str(Violation(11, "a row is left")) == "invariant 11: a row is left"


def test_the_time_for_many_events_is_told() -> None:
    """No limit here: how long it may take on a machine that does other things is no promise."""
    run = good_run(12, jobs=5_000)
    started = time.perf_counter()

    found = check(run.events, run.final)

    seconds = time.perf_counter() - started
    print(f"{len(run.events)} events in {seconds:.2f} s: {1e6 * seconds / len(run.events):.1f} s a million")
    assert found == []
