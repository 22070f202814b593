"""Invariant 6: the effect of a job that succeeded is there once, and more runs than that have a fault beside them."""

from collections.abc import Iterator

from tests.chaos.evidence import Case, Evidence
from tests.chaos.final import AttemptRow, EndedJob
from tests.chaos.ledger import Effect
from tests.chaos.violation import Violation

# What runs a handler again although its attempt was not charged, without anybody having asked for it.
_UNASKED = frozenset({"loss", "hand_back"})


def effects(evidence: Evidence) -> Iterator[Violation]:
    """6: a job that succeeded has the effect of the run whose result was committed; no other job has any.

    Other effects, losses and runs beyond the charged attempts are there only beside a logged fault, and a job that was
    cancelled before its first claim never ran. `tally` tells how many extra runs there were.
    """
    for case in evidence.cases.values():
        if not case.exists or not evidence.is_watched(case):
            continue
        ended = case.ended[0] if case.ended else None
        others = list(case.effects)
        if ended is not None and ended.state == "succeeded":
            committed = _committed(case, ended)
            if committed is None:
                yield Violation(6, "the job succeeded without the effect of its last run", case.tenant, case.job)
            else:
                others.remove(committed)
        for effect in others:
            if not evidence.faults.near(effect.at):
                state = case.row.state if case.row is not None else "lost"
                what = f"an effect of attempt {effect.attempt} beside the committed one, of a job that {state}"
                yield Violation(6, f"{what}, without a fault", case.tenant, case.job)
        yield from _extra_runs(case, evidence)


def _committed(case: Case, ended: EndedJob) -> Effect | None:
    """The effect whose result the final row has."""
    for effect in reversed(case.effects):
        if effect.fence:
            if effect.fence != ended.fence:
                continue
        elif (effect.attempt, effect.losses) != (ended.attempt, ended.losses):
            continue
        # Runs that were handed back and run again have the same numbers: the result tells them apart.
        if not effect.result_hash or not ended.result_hash or effect.result_hash == ended.result_hash:
            return effect
    return None


def _extra_runs(case: Case, evidence: Evidence) -> Iterator[Violation]:
    for claim in case.claims:
        if claim.kind == "loss" and not _is_excused(claim, evidence):
            yield Violation(6, f"claim {claim.fence} was lost without a fault", case.tenant, case.job)
    for ended in case.ended[:1]:
        if ended.reason == "worker_lost" and not evidence.faults.near_span(
            ended.finished_at if ended.started_at is None else ended.started_at, ended.finished_at
        ):
            yield Violation(6, "the job's last worker was lost without a fault", case.tenant, case.job)
    extra = extra_runs(case)
    if (
        extra > 0
        and not any(claim.kind in _UNASKED and _is_excused(claim, evidence) for claim in case.claims)
        and not any(evidence.faults.near(run.at) for run in case.began)
    ):
        yield Violation(6, f"{extra} runs beyond what was asked for, without a fault", case.tenant, case.job)


def extra_runs(case: Case) -> int:
    """Runs beyond its charged attempts, its snoozes and the run that ended it; below zero where some never started."""
    asked_for = sum(claim.kind not in _UNASKED for claim in case.claims)
    asked_for += sum(ended.held for ended in case.ended[:1])
    asked_for += sum(opened.state == "running" for opened in case.open[:1])
    return len(case.began) - asked_for


def _is_excused(claim: AttemptRow, evidence: Evidence) -> bool:
    begin = claim.finished_at if claim.started_at is None else claim.started_at
    return evidence.faults.near_span(begin, claim.finished_at)
