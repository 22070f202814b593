"""Invariants 1, 2, 11 and 12: what was asked for is there, once, in the right books and in nobody else's hands."""

from collections import Counter
from collections.abc import Iterator

from tests.chaos.evidence import Case, Evidence, Wish
from tests.chaos.violation import Violation


def accepts(evidence: Evidence) -> Iterator[Violation]:
    """1: an accepted submission has exactly one job, an unknown one none or one, a refused one none.

    A submission without an answer, and one that was answered 500 or above, is unknown. And no job is there that nobody
    asked for: each stands for a key that was sent, or for a redrive.
    """
    for wish in evidence.wishes.values():
        yield from _accept(wish, evidence)
    for case in evidence.cases.values():
        if case.exists and case.wish is None and case.dead is None:
            yield Violation(1, "a job that nobody asked for", case.tenant, case.job)


def _accept(wish: Wish, evidence: Evidence) -> Iterator[Violation]:
    jobs = wish.jobs()
    named = next(iter(jobs), "")
    if not wish.sent:
        yield Violation(1, f"key {wish.key} was never sent", wish.tenant, named)
        return
    if wish.is_refused and not wish.accepted:
        if jobs:
            statuses = [refused.status for refused in wish.refused]
            yield Violation(1, f"key {wish.key} was refused with {statuses} and has a job", wish.tenant, named)
        return
    for job in jobs:
        if not evidence.cases[job].exists:
            promise = "was accepted" if wish.accepted else "is known"
            yield Violation(1, f"lost: key {wish.key} {promise} and its job has no row", wish.tenant, job)
    if wish.accepted and not jobs:
        yield Violation(1, f"lost: key {wish.key} was accepted and has no job", wish.tenant)


def keys(evidence: Evidence) -> Iterator[Violation]:
    """2: one key is one job of its tenant: in every answer, in the rows, and the other way round.

    Of two bodies under one key one is refused as a conflict, and nothing is a conflict where all bodies are the same.
    """
    for wish in evidence.wishes.values():
        jobs = wish.jobs()
        named = next(iter(jobs), "")
        if len(jobs) > 1:
            yield Violation(2, f"key {wish.key} stands for {len(jobs)} jobs: {list(jobs)}", wish.tenant, named)
        if len(wish.stored) > 1:
            yield Violation(2, f"key {wish.key} is stored {len(wish.stored)} times", wish.tenant, wish.stored[0])
        if evidence.final.keys and wish.accepted and jobs and not wish.stored:
            yield Violation(2, f"key {wish.key} was accepted and is not remembered", wish.tenant, named)
        for job in jobs:
            owner = evidence.cases[job].wish
            if owner is not wish and owner is not None:
                yield Violation(2, f"keys {owner.key} and {wish.key} stand for the same job", wish.tenant, job)
        if len(wish.accepted_bodies) > 1:
            yield Violation(2, f"key {wish.key} was accepted with two bodies", wish.tenant, named)
        if len(wish.bodies) == 1:
            conflicts = [one.status for one in wish.refused if one.status in evidence.rules.conflict_statuses]
            if conflicts and wish.accepted:
                what = f"key {wish.key} was refused with {conflicts} although it always had the same body"
                yield Violation(2, what, wish.tenant, named)


def books(evidence: Evidence) -> Iterator[Violation]:
    """11: what was asked for and redriven is what has ended and what is open, tenant by tenant and in sum.

    And equal to what the product tells of itself. Gates count what runs, and tables that are empty when nothing moves
    are empty. A redrive that was answered is one new job for one dead letter, which is a job that failed.
    """
    final = evidence.final
    wanted = Counter(wish.tenant for wish in evidence.wishes.values() for _ in wish.jobs())
    wanted.update(redrive.tenant for redrive in final.redrives)
    there = Counter(row.tenant for row in final.ended)
    there.update(row.tenant for row in final.open)
    for tenant in sorted(wanted.keys() | there.keys()):
        if wanted[tenant] != there[tenant]:
            what = f"{wanted[tenant]} jobs were accepted or redriven, {there[tenant]} have ended or are open"
            yield Violation(11, what, tenant)
    states = Counter(row.state for row in final.ended)
    states.update(row.state for row in final.open)
    for state, told in final.counted.items():
        if states[state] != told:
            yield Violation(11, f"the product tells of {told} {state} jobs, {states[state]} are there")
    for table, count in final.left.items():
        if count and not evidence.rules.open_allowed:
            yield Violation(11, f"{count} rows are left in {table}")
    if not evidence.rules.open_allowed:
        for opened in final.open:
            yield Violation(11, f"the job is still {opened.state}", opened.tenant, opened.job)
    yield from _gates(evidence)
    yield from _redrives(evidence)


def _gates(evidence: Evidence) -> Iterator[Violation]:
    running = [row for row in evidence.final.open if row.state == "running"]
    by_tenant = Counter(row.tenant for row in running)
    by_type = Counter((row.tenant, row.type) for row in running)
    for gate in evidence.final.gates:
        if gate.kind not in ("tenant", "type"):
            continue
        runs = by_tenant[gate.tenant] if gate.kind == "tenant" else by_type[gate.tenant, gate.type]
        # What starts after a limit was taken away holds no place; what started before still does.
        if gate.used > runs or (gate.used < runs and gate.allowed is not None):
            what = f"the gate of {gate.type or 'the tenant'} counts {gate.used} running jobs, {runs} are"
            yield Violation(11, what, gate.tenant)
        if gate.allowed is not None and gate.used > gate.allowed:
            yield Violation(11, f"the gate of {gate.type or 'the tenant'} let {gate.used} through", gate.tenant)


def _redrives(evidence: Evidence) -> Iterator[Violation]:
    by_dead: dict[str, str] = {}
    for redrive in evidence.final.redrives:
        if by_dead.setdefault(redrive.dead, redrive.job) != redrive.job:
            yield Violation(11, "a dead letter was redriven as two jobs", redrive.tenant, redrive.dead)
        dead, new = evidence.cases.get(redrive.dead), evidence.cases.get(redrive.job)
        if dead is None or not dead.ended or dead.ended[0].state != "failed":
            yield Violation(11, f"{redrive.dead} was redriven and has not failed", redrive.tenant, redrive.job)
        if new is None or not new.exists:
            yield Violation(11, "lost: the new job of a redrive has no row", redrive.tenant, redrive.job)
    for answer in evidence.redriven:
        if by_dead.get(answer.dead) != answer.job:
            what = f"the redrive was answered with {answer.job} and is stored as {by_dead.get(answer.dead)}"
            yield Violation(11, what, answer.tenant, answer.dead)


def tenants(evidence: Evidence) -> Iterator[Violation]:
    """12: every row, run, event, dead letter, delivery and webhook of a job belongs to the tenant whose job it is."""
    for case in evidence.cases.values():
        for where, tenant in _tenants_of(case):
            if tenant != case.tenant:
                yield Violation(12, f"{where} belongs to tenant {tenant}", case.tenant, case.job)
    final = evidence.final
    for delivery in final.deliveries:
        yield from _of_job(evidence, delivery.job, delivery.tenant, "a delivery")
    for dead in final.dead_deliveries or ():
        yield from _of_job(evidence, dead.job, dead.tenant, "a dead delivery's record")
    for letter in final.dead_letters:
        if letter.kind == "job":
            yield from _of_job(evidence, letter.ref, letter.tenant, "a dead letter")
    for redrive in final.redrives:
        yield from _of_job(evidence, redrive.job, redrive.tenant, "a redrive")
        yield from _of_job(evidence, redrive.dead, redrive.tenant, "a redrive")
    owners = {endpoint.endpoint: endpoint.tenant for endpoint in final.endpoints}
    for calls in evidence.received.values():
        for call in calls:
            yield from _of_job(evidence, call.job, call.tenant, "a webhook")
            if owners.get(call.endpoint, call.tenant) != call.tenant:
                what = f"a webhook of tenant {call.tenant} went to an endpoint of tenant {owners[call.endpoint]}"
                yield Violation(12, what, call.tenant, call.job)


def _tenants_of(case: Case) -> Iterator[tuple[str, str]]:
    for row in case.open:
        yield "its row", row.tenant
    for ended in case.ended:
        yield "its final row", ended.tenant
    for claim in case.claims:
        yield "a row of its attempts", claim.tenant
    for began in case.began:
        yield "a run", began.tenant
    for effect in case.effects:
        yield "an effect", effect.tenant
    for event in case.events:
        yield "an event", event.tenant
    for event in case.dead_events:
        yield "a dead letter's record", event.tenant


def _of_job(evidence: Evidence, job: str, tenant: str, what: str) -> Iterator[Violation]:
    case = evidence.cases.get(job)
    if case is not None and case.exists and case.tenant != tenant:
        yield Violation(12, f"{what} belongs to tenant {tenant}", case.tenant, job)
