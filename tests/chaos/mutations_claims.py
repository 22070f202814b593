"""Mutations of how jobs ran: invariants 3, 4, 5, 6 and 9."""

from msgspec.structs import replace

from tests.chaos.evidence import Case
from tests.chaos.final import OpenJob
from tests.chaos.ledger import Accepting, Began, Cancelled, CrashPoint, Effect, FaultBegan, FaultEnded
from tests.chaos.mutation import Mutations, Run

CLAIMS = Mutations()


def _is_plain(case: Case) -> bool:
    """One claim, one run, one effect."""
    return len(case.began) == len(case.effects) == 1 and not case.claims and case.ended[0].state == "succeeded"


def _plain_in_calm(run: Run) -> Case:
    return run.case(lambda case: _is_plain(case) and run.calm(case.ended[0].finished_at) and case.wish is not None)


def _retried(run: Run) -> Case:
    return run.case(lambda case: len(case.claims) > 1 and case.ended[0].held and case.ended[0].state == "succeeded")


@CLAIMS.breaks(3)
def end_twice(run: Run) -> None:
    row = run.pick(run.final.ended)
    run.final.ended.append(replace(row, event_id="made-up", state="cancelled", reason=None))


@CLAIMS.breaks(3)
def keep_an_ended_job_open(run: Run) -> None:
    row = run.pick(run.final.ended)
    run.final.open.append(OpenJob(row.tenant, row.job, "queued", row.attempt, row.fence))


@CLAIMS.breaks(3)
def end_in_no_terminal_state(run: Run) -> None:
    run.change(run.final.ended, run.pick(run.final.ended), state="running")


@CLAIMS.breaks(3)
def cancel_what_should_succeed(run: Run) -> None:
    run.change(run.final.ended, _plain_in_calm(run).ended[0], state="cancelled")


@CLAIMS.breaks(3)
def fail_without_a_reason(run: Run) -> None:
    run.change(run.final.ended, run.pick(run.final.ended, lambda row: row.state == "failed"), reason=None)


@CLAIMS.breaks(3)
def succeed_while_it_waits(run: Run) -> None:
    run.change(run.final.ended, _plain_in_calm(run).ended[0], held=False)


@CLAIMS.breaks(3)
def claim_what_is_cancelled(run: Run) -> None:
    case = _retried(run)
    run.tell(Cancelled(case.claims[0].finished_at - 20, case.tenant, case.job))


@CLAIMS.breaks(3)
def fail_what_is_cancelled(run: Run) -> None:
    case = run.case(
        lambda case: case.ended[0].state == "failed" and case.ended[0].held and run.calm(case.ended[0].finished_at - 10)
    )
    run.tell(Cancelled(case.ended[0].finished_at - 10, case.tenant, case.job))


@CLAIMS.breaks(3)
def let_go_in_an_unknown_way(run: Run) -> None:
    run.change(run.final.attempts, run.pick(run.final.attempts), kind="vanish")


@CLAIMS.breaks(4)
def forget_a_claim(run: Run) -> None:
    claim = _retried(run).claims[0]
    run.drop(run.final.attempts, lambda one: one is claim)


@CLAIMS.breaks(4)
def count_a_claim_twice(run: Run) -> None:
    run.final.attempts.append(run.pick(run.final.attempts))


@CLAIMS.breaks(4)
def skip_a_number(run: Run) -> None:
    claim = _retried(run).claims[-1]
    run.change(run.final.attempts, claim, attempt=claim.attempt + 1)


@CLAIMS.breaks(4)
def charge_more_than_allowed(run: Run) -> None:
    asked = run.pick(run.events, lambda one: isinstance(one, Accepting) and one.max_attempts)
    assert isinstance(asked, Accepting), "picked as such"
    for again in [one for one in run.events if isinstance(one, Accepting) and one.key == asked.key]:
        run.change(run.events, again, max_attempts=1)


@CLAIMS.breaks(4)
def commit_the_result_of_an_older_claim(run: Run) -> None:
    row = _retried(run).ended[0]
    run.change(run.final.ended, row, fence=row.fence - 1)


@CLAIMS.breaks(4)
def charge_a_loss(run: Run) -> None:
    row = run.case(lambda case: any(claim.kind == "loss" for claim in case.claims)).ended[0]
    run.change(run.final.ended, row, attempt=row.attempt + 1)


@CLAIMS.breaks(4)
def forget_a_loss(run: Run) -> None:
    row = run.pick(run.final.ended, lambda row: row.losses)
    run.change(run.final.ended, row, losses=row.losses - 1)


@CLAIMS.breaks(4)
def run_a_claim_twice(run: Run) -> None:
    began = _plain_in_calm(run).began[0]
    run.tell(replace(began, at=began.at + 0.01))


@CLAIMS.breaks(4)
def run_without_a_claim(run: Run) -> None:
    began = _retried(run).began[0]
    run.change(run.events, began, attempt=began.attempt + 5)


@CLAIMS.breaks(4)
def have_an_effect_without_a_beginning(run: Run) -> None:
    began = _plain_in_calm(run).began[0]
    run.drop(run.events, lambda one: one is began)


@CLAIMS.breaks(4)
def have_an_effect_before_the_beginning(run: Run) -> None:
    effect = _plain_in_calm(run).effects[0]
    run.change(run.events, effect, at=effect.at - 10)


@CLAIMS.breaks(4)
def run_what_has_no_row(run: Run) -> None:
    began = _plain_in_calm(run).began[0]
    run.tell(replace(began, job="made-up"))


@CLAIMS.breaks(5)
def hold_two_claims_at_once(run: Run) -> None:
    claim = _retried(run).claims[0]
    run.change(run.final.attempts, claim, finished_at=claim.finished_at + 60, next_at=None)


@CLAIMS.breaks(5)
def end_a_claim_before_it_began(run: Run) -> None:
    claim = _retried(run).claims[-1]
    assert claim.started_at is not None, "good claims have begun"
    run.change(run.final.attempts, claim, finished_at=claim.started_at - 60, next_at=None)


@CLAIMS.breaks(5)
def begin_before_the_claim(run: Run) -> None:
    began = _plain_in_calm(run).began[0]
    run.change(run.events, began, at=began.at - 20)


@CLAIMS.breaks(5)
def begin_after_the_end_in_calm(run: Run) -> None:
    case = run.case(lambda case: len(case.began) > 1 and not case.effects and run.calm(case.ended[0].finished_at + 20))
    run.change(run.events, case.began[0], at=case.ended[0].finished_at + 20)


@CLAIMS.breaks(5)
def start_two_of_a_line_at_once(run: Run) -> None:
    first, later = _two_of_a_line(run)
    run.change(run.final.ended, first.ended[0], finished_at=_began(later) + 20)


@CLAIMS.breaks(5)
def overtake_in_a_line(run: Run) -> None:
    # Their rows change places; what they have in the ledger is found fault with too.
    first, later = _two_of_a_line(run)
    for mine, other in ((first.ended[0], later.ended[0]), (later.ended[0], first.ended[0])):
        run.change(run.final.ended, mine, started_at=other.started_at, finished_at=other.finished_at)


def _two_of_a_line(run: Run) -> tuple[Case, Case]:
    """Two jobs of one ordering key; the first was accepted before the other was asked for."""

    def is_before(case: Case, other: Case) -> bool:
        mine, its = case.wish, other.wish
        if mine is None or its is None or mine.asked is None or its.asked is None:
            return False
        key = mine.asked.ordering_key
        is_of_line = key is not None and (its.tenant, its.asked.ordering_key) == (mine.tenant, key)
        return is_of_line and any(one.job and one.at < its.asked.at for one in mine.accepted)

    lined_up = [case for case in run.before.cases.values() if case.wish and case.wish.asked and case.ended]
    lined_up = [case for case in lined_up if case.wish and case.wish.asked and case.wish.asked.ordering_key]
    return run.pick([(one, other) for one in lined_up for other in lined_up], lambda pair: is_before(*pair))


def _asked(case: Case) -> float:
    assert case.wish is not None, "of a line"
    assert case.wish.asked is not None, "of a line"
    return case.wish.asked.at


def _began(case: Case) -> float:
    return case.ended[0].started_at or 0.0


@CLAIMS.breaks(6)
def lose_an_effect(run: Run) -> None:
    effect = _plain_in_calm(run).effects[0]
    run.drop(run.events, lambda one: one is effect)


@CLAIMS.breaks(6)
def have_an_effect_twice(run: Run) -> None:
    effect = _plain_in_calm(run).effects[0]
    run.tell(replace(effect, at=effect.at + 0.001, result_hash="made-up"))


@CLAIMS.breaks(6)
def have_an_effect_of_a_failed_job(run: Run) -> None:
    began = run.case(lambda case: case.ended[0].state == "failed" and case.began and run.calm(case.began[0].at)).began[
        0
    ]
    run.tell(Effect(began.at + 0.1, began.tenant, began.job, began.attempt, 0, began.pid, began.losses, "made-up"))


@CLAIMS.breaks(6)
def commit_what_no_run_returned(run: Run) -> None:
    run.change(run.final.ended, _plain_in_calm(run).ended[0], result_hash="made-up")


@CLAIMS.breaks(6)
def commit_the_zombies_result(run: Run) -> None:
    case = run.case(lambda case: len(case.effects) > 1 and case.ended[0].state == "succeeded")
    run.change(run.final.ended, case.ended[0], result_hash=case.effects[0].result_hash)


@CLAIMS.breaks(6)
def lose_workers_without_a_fault(run: Run) -> None:
    run.drop(run.events, lambda one: isinstance(one, FaultBegan | FaultEnded | CrashPoint))


@CLAIMS.breaks(6)
def hand_back_and_run_again_without_a_fault(run: Run) -> None:
    case = _plain_in_calm(run)
    began, row = case.began[0], case.ended[0]
    assert row.started_at is not None, "it was claimed"
    claim = (row.tenant, row.job, 1, 1, "hand_back", row.started_at - 0.002, row.started_at - 0.001)
    run.final.attempts.append(type(run.final.attempts[0])(*claim))
    run.change(run.final.ended, row, fence=2)
    run.tell(replace(began, at=began.at - 0.001))


@CLAIMS.breaks(6)
def run_what_was_cancelled_before(run: Run) -> None:
    case = run.case(lambda case: case.ended[0].fence == 0 and run.calm(case.ended[0].finished_at))
    at = case.ended[0].finished_at - 0.1
    run.tell(Began(at, case.tenant, case.job, 1), Effect(at, case.tenant, case.job, 1))


@CLAIMS.breaks(9)
def start_before_it_was_asked_for(run: Run) -> None:
    case = run.case(lambda case: _is_plain(case) and case.wish and case.wish.sent == 1 and _asked(case) < _began(case))
    assert case.wish is not None, "picked as such"
    assert case.wish.asked is not None, "picked as such"
    run.change(run.events, case.wish.asked, at=case.wish.asked.at + 100, due_at=None)


@CLAIMS.breaks(9)
def start_before_it_was_due(run: Run) -> None:
    asked = _plain_in_calm(run).wish
    assert asked is not None, "picked as such"
    assert asked.asked is not None, "picked as such"
    run.change(run.events, asked.asked, due_at=asked.asked.at + 100)


@CLAIMS.breaks(9)
def retry_before_the_backoff_is_over(run: Run) -> None:
    claim = run.pick(run.final.attempts, lambda claim: claim.next_at and run.before.cases[claim.job].ended[0].held)
    run.change(run.final.attempts, claim, next_at=claim.finished_at + 100)
