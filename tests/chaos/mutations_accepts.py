"""Mutations of what was asked for and of the books: invariants 1, 2, 11 and 12."""

from msgspec.structs import replace

from tests.chaos.final import EndedJob, KeyRow, OpenJob, RedriveRow
from tests.chaos.ledger import Accepted, Accepting, Began, Effect, Received, Redriven, Refused
from tests.chaos.mutation import Mutations, Run

ACCEPTS = Mutations()


def _ended(run: Run, state: str = "succeeded") -> EndedJob:
    return run.pick(run.final.ended, lambda row: row.state == state and run.before.cases[row.job].wish is not None)


def _other_tenant(run: Run, tenant: str) -> str:
    return run.pick([row.tenant for row in run.final.keys], lambda other: other != tenant)


@ACCEPTS.breaks(1)
def lose_a_job(run: Run) -> None:
    row = _ended(run)
    run.drop(run.final.ended, lambda one: one is row)


@ACCEPTS.breaks(1)
def lose_a_job_with_its_key(run: Run) -> None:
    wish = run.wish(lambda wish: wish.accepted)
    run.drop(run.final.keys, lambda one: (one.tenant, one.key) == (wish.tenant, wish.key))
    run.drop(run.final.ended, lambda one: one.job in wish.jobs())


@ACCEPTS.breaks(1)
def make_a_job_of_a_refused_submission(run: Run) -> None:
    wish = run.wish(lambda wish: wish.is_refused)
    row = replace(_ended(run), tenant=wish.tenant, job="made-up", event_id="made-up")
    run.final.ended.append(row)
    run.final.keys.append(KeyRow(wish.tenant, wish.key, "made-up"))


@ACCEPTS.breaks(1)
def make_a_job_that_nobody_asked_for(run: Run) -> None:
    run.final.ended.append(replace(_ended(run), job="made-up", event_id="made-up"))


@ACCEPTS.breaks(1)
def give_a_key_to_another_tenant(run: Run) -> None:
    key = run.pick(run.final.keys)
    run.change(run.final.keys, key, tenant=_other_tenant(run, key.tenant))


@ACCEPTS.breaks(2)
def answer_with_another_job(run: Run) -> None:
    accepted = run.pick(run.events, lambda one: isinstance(one, Accepted) and one.job)
    run.change(run.events, accepted, job=_ended(run).job)


@ACCEPTS.breaks(2)
def forget_a_key(run: Run) -> None:
    accepted = run.pick(run.events, lambda one: isinstance(one, Accepted) and one.job)
    assert isinstance(accepted, Accepted), "picked as such"
    run.drop(run.final.keys, lambda one: one.job == accepted.job)


@ACCEPTS.breaks(2)
def store_a_key_twice(run: Run) -> None:
    key = run.pick(run.final.keys)
    run.final.keys.append(replace(key, job=_ended(run).job))


@ACCEPTS.breaks(2)
def make_two_keys_one_job(run: Run) -> None:
    key = run.pick(run.final.keys)
    other = run.pick(run.final.keys, lambda one: one.tenant == key.tenant and one.job != key.job)
    run.change(run.final.keys, other, job=key.job)


@ACCEPTS.breaks(2)
def accept_another_body(run: Run) -> None:
    wish = run.wish(lambda wish: len(wish.bodies) == 1 and any(one.job for one in wish.accepted))
    accepted = wish.accepted[0]
    run.tell(
        Accepting(accepted.at + 1, wish.key, wish.tenant, body_hash="other"),
        replace(accepted, at=accepted.at + 2, body_hash="other"),
    )


@ACCEPTS.breaks(2)
def refuse_the_same_body_as_a_conflict(run: Run) -> None:
    wish = run.wish(lambda wish: len(wish.bodies) == 1 and wish.accepted)
    at = wish.accepted[0].at + 1
    (body,) = wish.bodies
    run.tell(Accepting(at, wish.key, wish.tenant, body_hash=body), Refused(at + 1, wish.key, wish.tenant, 422))


@ACCEPTS.breaks(11)
def count_one_too_few(run: Run) -> None:
    run.final.counted["succeeded"] -= 1


@ACCEPTS.breaks(11)
def leave_a_row_behind(run: Run) -> None:
    run.final.left["outbox"] = 1


@ACCEPTS.breaks(11)
def leave_a_job_open(run: Run) -> None:
    row = run.pick(run.final.ended, lambda row: row.fence == 1 and row.held and row.state == "succeeded")
    run.drop(run.final.ended, lambda one: one is row)
    run.final.open.append(OpenJob(row.tenant, row.job, "running", 1, 1))


@ACCEPTS.breaks(11)
def leave_a_place_in_a_gate_taken(run: Run) -> None:
    run.change(run.final.gates, run.pick(run.final.gates), used=1)


@ACCEPTS.breaks(11)
def lose_a_redriven_job(run: Run) -> None:
    redrive = run.pick(run.final.redrives)
    run.drop(run.final.ended, lambda one: one.job == redrive.job)


@ACCEPTS.breaks(11)
def redrive_twice(run: Run) -> None:
    redrive = run.pick(run.final.redrives)
    run.final.redrives.append(RedriveRow(redrive.tenant, redrive.dead, "made-up"))
    run.final.ended.append(replace(_ended(run), job="made-up", event_id="made-up"))


@ACCEPTS.breaks(11)
def answer_a_redrive_with_another_job(run: Run) -> None:
    answer = run.pick(run.events, lambda one: isinstance(one, Redriven))
    run.change(run.events, answer, job="made-up")


@ACCEPTS.breaks(11)
def redrive_a_job_that_succeeded(run: Run) -> None:
    redrive = run.pick(run.final.redrives)
    run.change(run.final.redrives, redrive, dead=_ended(run).job)


@ACCEPTS.breaks(12)
def give_a_job_to_another_tenant(run: Run) -> None:
    row = _ended(run)
    run.change(run.final.ended, row, tenant=_other_tenant(run, row.tenant))


@ACCEPTS.breaks(12)
def give_an_attempt_to_another_tenant(run: Run) -> None:
    row = run.pick(run.final.attempts)
    run.change(run.final.attempts, row, tenant=_other_tenant(run, row.tenant))


@ACCEPTS.breaks(12)
def give_an_event_to_another_tenant(run: Run) -> None:
    row = run.pick(run.final.events)
    run.change(run.final.events, row, tenant=_other_tenant(run, row.tenant))


@ACCEPTS.breaks(12)
def give_a_delivery_to_another_tenant(run: Run) -> None:
    row = run.pick(run.final.deliveries)
    run.change(run.final.deliveries, row, tenant=_other_tenant(run, row.tenant))


@ACCEPTS.breaks(12)
def give_a_dead_letter_to_another_tenant(run: Run) -> None:
    row = run.pick(run.final.dead_letters, lambda letter: letter.kind == "job")
    run.change(run.final.dead_letters, row, tenant=_other_tenant(run, row.tenant))


@ACCEPTS.breaks(12)
def run_a_job_as_another_tenant(run: Run) -> None:
    event = run.pick(run.events, lambda one: isinstance(one, Began | Effect))
    assert isinstance(event, Began | Effect), "picked as such"
    run.change(run.events, event, tenant=_other_tenant(run, event.tenant))


@ACCEPTS.breaks(12)
def send_a_webhook_to_another_tenants_endpoint(run: Run) -> None:
    event = run.pick(run.events, lambda one: isinstance(one, Received))
    assert isinstance(event, Received), "picked as such"
    foreign = run.pick(run.final.endpoints, lambda endpoint: endpoint.tenant != event.tenant)
    run.change(run.events, event, endpoint=foreign.endpoint)
