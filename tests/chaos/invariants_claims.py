"""Invariants 3, 4, 5 and 9: how a job went from its acceptance to its one end, claim by claim."""

import itertools
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache

from barnabas.domain.jobs import OPEN, TERMINAL, TRANSITIONS, Command, JobState
from tests.chaos.evidence import Case, Evidence
from tests.chaos.final import EndedJob
from tests.chaos.ledger import Began, Effect
from tests.chaos.violation import Violation

_TERMINAL = frozenset(state.label for state in TERMINAL)
_OPEN = frozenset(state.label for state in OPEN)
_STATES = {state.label: state for state in JobState}
_WORKER_LOST = "worker_lost"

_AFTER = {
    "attempt": Command.RETRY,
    "loss": Command.LOSE,
    "hand_back": Command.HAND_BACK,
    "snooze": Command.SNOOZE,
}
_END = {"succeeded": Command.SUCCEED, "failed": Command.FAIL, "cancelled": Command.CANCEL}

# Times of one clock, compared after they went through floating point.
_ROUNDING_SECONDS = 0.005


def ends(evidence: Evidence) -> Iterator[Violation]:
    """3: each job has one row and one terminal state, and got there on a path of the published state graph.

    It ends as its wish foretold. A job that lost its worker too often may have failed instead, beside a fault. Exactly
    the failed ones have a reason. After an answered cancel no claim begins, and once the worker must have heard of it
    only a success may still come.
    """
    for case in evidence.cases.values():
        rows = len(case.ended) + len(case.open)
        if rows > 1:
            states = [ended.state for ended in case.ended] + [opened.state for opened in case.open]
            yield Violation(3, f"the job has {rows} rows: {states}", case.tenant, case.job)
        for opened in case.open:
            if opened.state not in _OPEN:
                yield Violation(3, f"an open job is {opened.state}", case.tenant, case.job)
        for ended in case.ended:
            yield from _end(case, ended, evidence)


def _end(case: Case, ended: EndedJob, evidence: Evidence) -> Iterator[Violation]:
    if ended.state not in _TERMINAL:
        yield Violation(3, f"an ended job is {ended.state}", case.tenant, case.job)
        return
    if (ended.reason is not None) != (ended.state == "failed"):
        yield Violation(3, f"a job that {ended.state} has the reason {ended.reason}", case.tenant, case.job)
    if not _is_path(tuple(claim.kind for claim in case.claims), ended.state, ended.held):
        kinds = [claim.kind for claim in case.claims]
        holder = "" if ended.held else " held by nobody"
        yield Violation(3, f"no path of states leads over {kinds} to {ended.state}{holder}", case.tenant, case.job)
    expected = case.wish.asked.expected if case.wish is not None and case.wish.asked is not None else ""
    if expected not in ("", ended.state):
        excused = ended.reason == _WORKER_LOST and evidence.faults.near(ended.finished_at)
        if not excused:
            what = f"the job should have {expected} and {ended.state} ({ended.reason})"
            yield Violation(3, what, case.tenant, case.job)
    for cancelled in case.cancelled:
        # One that came after the end changed nothing.
        if ended.finished_at <= cancelled.at:
            continue
        if ended.state == "failed" and ended.finished_at > cancelled.at + evidence.rules.slack_seconds:
            yield Violation(3, "the job's cancel was answered, and it failed", case.tenant, case.job)
        for begin, _ in _spans(case):
            if begin > cancelled.at + evidence.rules.slack_seconds:
                yield Violation(3, "the job was claimed after its cancel was answered", case.tenant, case.job)


@lru_cache(maxsize=10_000)
def _is_path(kinds: tuple[str, ...], state: str, held: bool) -> bool:
    """Whether the state graph leads from an accepted job over these claims to that end."""
    # A job is born due later, blocked or ready; what precedes its first claim leaves no row.
    places = {JobState.QUEUED, JobState.SCHEDULED, JobState.BLOCKED} if not kinds and not held else {JobState.RUNNING}
    for index, kind in enumerate(kinds):
        command = _AFTER.get(kind)
        let_go = TRANSITIONS.get((JobState.RUNNING, command)) if command is not None else None
        if let_go is None:
            return False
        if index == len(kinds) - 1 and not held:
            places = {let_go, JobState.QUEUED}
            break
        # The next claim, at once or when it is due.
        if (let_go, Command.CLAIM) not in TRANSITIONS:
            return False
    return any(TRANSITIONS.get((place, _END[state])) is _STATES[state] for place in places)


def claims(evidence: Evidence) -> Iterator[Violation]:
    """4: claims are 1..n without a gap, and so are charged attempts, at most as many as allowed.

    Losses, hand-backs and snoozes repeat the number of their attempt. The one committed result belongs to the newest
    claim. Every run in the ledger is one of these claims, and no claim was run twice.
    """
    for case in evidence.cases.values():
        if not case.exists:
            if case.began or case.effects or case.claims:
                yield Violation(4, "there are runs of a job that is not there", case.tenant, case.job)
            continue
        numbers = yield from _numbers(case)
        if numbers is not None and evidence.is_watched(case):
            yield from _runs(case, numbers)
        row = case.row
        limit = case.wish.asked.max_attempts if case.wish is not None and case.wish.asked is not None else None
        if limit is not None and row is not None and row.attempt > limit:
            yield Violation(4, f"{row.attempt} attempts were charged, {limit} are allowed", case.tenant, case.job)


Numbers = list[tuple[int, int]]
"""Of each claim, in the order of fences: its attempt's number, and how often the job had been lost before."""


def _numbers(case: Case) -> Generator[Violation, None, Numbers | None]:
    """The numbers of each claim as they must be; None when the rows contradict each other."""
    number, losses = 1, 0
    numbers: Numbers = []
    for fence, claim in enumerate(case.claims, start=1):
        if claim.fence != fence:
            fences = [one.fence for one in case.claims]
            yield Violation(4, f"claims are not counted without a gap: {fences}", case.tenant, case.job)
            return None
        if claim.attempt != number:
            what = f"claim {fence} was attempt {claim.attempt} and should be {number}"
            yield Violation(4, what, case.tenant, case.job)
            return None
        numbers.append((number, losses))
        number += claim.kind == "attempt"
        losses += claim.kind == "loss"
    row = case.row
    assert row is not None, "only jobs that are there come here"
    lost = False
    if isinstance(row, EndedJob):
        lost = row.reason == _WORKER_LOST
        is_held = row.held
    else:
        is_held = row.state == "running"
    if is_held:
        numbers.append((number, losses))
    # A claim that was lost, or is none, charges nothing.
    attempt = number if is_held and not lost else number - 1
    if row.fence != len(numbers):
        whose = "the result" if isinstance(row, EndedJob) else "the row"
        what = f"{whose} belongs to claim {row.fence} and the newest is {len(numbers)}"
        yield Violation(4, what, case.tenant, case.job)
        return None
    if row.attempt != attempt:
        yield Violation(4, f"the row tells of {row.attempt} attempts, it had {attempt}", case.tenant, case.job)
    if row.losses != losses + lost:
        yield Violation(4, f"the row tells of {row.losses} losses, it had {losses + lost}", case.tenant, case.job)
    return numbers


def _runs(case: Case, numbers: Numbers) -> Iterator[Violation]:
    """Every run and every effect in the ledger has its claim, and each claim at most one run."""
    if len(case.began) == 1 and len(numbers) == 1 and not case.began[0].fence:
        # Nearly all jobs: one claim, one run.
        if (case.began[0].attempt, case.began[0].losses) != numbers[0]:
            yield _unclaimed(case, "a run", case.began[0])
    elif case.began:
        if len(case.began) > len(numbers):
            what = f"{len(case.began)} runs began under {len(numbers)} claims"
            yield Violation(4, what, case.tenant, case.job)
        room = Counter(numbers)
        fences = Counter[int]()
        for run in case.began:
            if run.fence:
                fences[run.fence] += 1
                if run.fence > len(numbers) or numbers[run.fence - 1][0] != run.attempt:
                    yield _unclaimed(case, "a run", run)
                elif fences[run.fence] == 2:
                    yield Violation(4, f"claim {run.fence} was run twice", case.tenant, case.job)
                continue
            room[run.attempt, run.losses] -= 1
            if room[run.attempt, run.losses] < 0:
                yield _unclaimed(case, "a run", run)
    for effect in case.effects:
        is_of = [run for run in case.began if _is_same_run(run, effect)]
        if not is_of:
            yield _unclaimed(case, "an effect", effect)


def _is_same_run(began: Began, effect: Effect) -> bool:
    return (
        began.attempt == effect.attempt
        and began.losses == effect.losses
        and began.fence == effect.fence
        and began.pid == effect.pid
        and began.at <= effect.at
    )


def _unclaimed(case: Case, what: str, run: Began | Effect) -> Violation:
    number = f"attempt {run.attempt} after {run.losses} losses" + (f", fence {run.fence}" if run.fence else "")
    return Violation(4, f"{what} that no claim or no beginning stands for: {number}", case.tenant, case.job)


def overlaps(evidence: Evidence) -> Iterator[Violation]:
    """5: between two starts of a job lies the end of the first, and of a line of one ordering key only one job has the
    turn: from its first start to its end no other of the line starts, and they start in the order of submission.

    A run that begins outside of its claim is a zombie, which is there only beside a fault.
    """
    slack = evidence.rules.slack_seconds
    for case in evidence.cases.values():
        spans = _spans(case)
        for before, after in itertools.pairwise(spans):
            if before[1] > after[0] + slack:
                what = f"a claim began {before[1] - after[0]:.1f} s before the one before it had ended"
                yield Violation(5, what, case.tenant, case.job)
        for begin, end in spans:
            if end < begin - slack:
                yield Violation(5, f"a claim ended {begin - end:.1f} s before it began", case.tenant, case.job)
        if spans and case.began and evidence.is_watched(case):
            last = spans[-1][1]
            for run in case.began:
                if run.at < spans[0][0] - slack:
                    what = f"a handler began {spans[0][0] - run.at:.1f} s before the job was claimed"
                    yield Violation(5, what, case.tenant, case.job)
                elif run.at > last + slack and not evidence.faults.near(run.at):
                    what = f"a handler began {run.at - last:.1f} s after the job's last claim had ended"
                    yield Violation(5, what, case.tenant, case.job)
    yield from _lines(evidence)


Span = tuple[float, float]


def _spans(case: Case) -> list[Span]:
    """When each claim began and ended, in the order of fences, as far as the rows tell."""
    spans = [(claim.started_at, claim.finished_at) for claim in case.claims if claim.started_at is not None]
    if case.ended and case.ended[0].held and case.ended[0].started_at is not None:
        spans.append((case.ended[0].started_at, case.ended[0].finished_at))
    return spans


@dataclass(frozen=True, slots=True)
class _Turn:
    """One job's time at the head of its line."""

    begin: float
    end: float
    asked_at: float
    accepted_at: float
    case: Case


def _lines(evidence: Evidence) -> Iterator[Violation]:
    lines: dict[tuple[str, str], list[_Turn]] = {}
    for case in evidence.cases.values():
        wish = case.wish
        if wish is None or wish.asked is None or wish.asked.ordering_key is None or not case.ended:
            continue
        spans = _spans(case)
        if spans:
            accepted_at = min((one.at for one in wish.accepted if one.job), default=float("inf"))
            turn = _Turn(spans[0][0], case.ended[0].finished_at, wish.asked.at, accepted_at, case)
            lines.setdefault((wish.tenant, wish.asked.ordering_key), []).append(turn)
    slack = evidence.rules.slack_seconds
    for (tenant, key), turns in lines.items():
        turns.sort(key=lambda turn: turn.begin)
        newest_asked = float("-inf")
        for index, turn in enumerate(turns):
            if index and turns[index - 1].end > turn.begin + slack:
                what = f"{turns[index - 1].case.job} has the same ordering key {key} and had not ended"
                yield Violation(5, what, tenant, turn.case.job)
            # Somebody who was asked for only after this one had been accepted has started before it.
            if turn.accepted_at < newest_asked:
                yield Violation(5, f"a later job of the ordering key {key} was before it", tenant, turn.case.job)
            newest_asked = max(newest_asked, turn.asked_at)


def due_times(evidence: Evidence) -> Iterator[Violation]:
    """9: nothing starts before it was asked for and is due: by the database's clock for claims, the ledger's for runs.

    Where a limit is set, nothing that is due starts later than it either, but beside a fault.
    """
    slack = evidence.rules.slack_seconds
    limit = evidence.rules.lateness_seconds_max
    for case in evidence.cases.values():
        wish = case.wish
        if wish is not None and wish.asked is not None:
            asked = wish.asked
            # What is due at once is due when it was asked for.
            due_at = asked.at if asked.due_at is None else asked.due_at
            for at in [run.at for run in case.began] + [span[0] for span in _spans(case)[:1]]:
                if at < due_at - slack:
                    yield Violation(9, f"a start {due_at - at:.2f} s before it was due", case.tenant, case.job)
        for due, start in waits(case):
            if start < due - _ROUNDING_SECONDS:
                yield Violation(9, f"a claim {due - start:.3f} s before its retry was due", case.tenant, case.job)
            elif limit is not None and start > due + limit and not evidence.faults.near_span(due, start):
                yield Violation(9, f"a retry started {start - due:.1f} s late", case.tenant, case.job)


def waits(case: Case) -> Iterator[tuple[float, float]]:
    """When the job was due again after a claim, and when it was claimed."""
    if not case.claims:
        return
    starts = [claim.started_at for claim in case.claims[1:]]
    starts += [ended.started_at for ended in case.ended[:1] if ended.held]
    for claim, start in zip(case.claims, starts, strict=False):
        if claim.next_at is not None and start is not None:
            yield claim.next_at, start
