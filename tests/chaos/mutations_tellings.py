"""Mutations of what others were told: invariants 7, 8 and 10."""

from msgspec.structs import replace

from tests.chaos.final import DeadLetterRow, DeliveryRow
from tests.chaos.ledger import Received
from tests.chaos.mutation import Mutations, Run

TELLINGS = Mutations()


def _taken(run: Run) -> Received:
    """The only call of a delivery, in calm, and taken."""
    call = run.pick(
        run.events,
        lambda one: (
            isinstance(one, Received)
            and one.answered == 204
            and run.calm(one.at)
            and len(run.before.received[one.webhook_id, one.endpoint]) == 1
        ),
    )
    assert isinstance(call, Received), "picked as such"
    return call


def _delivery(run: Run, call: Received) -> DeliveryRow:
    return run.before.deliveries[call.webhook_id, call.endpoint][0]


@TELLINGS.breaks(7)
def tell_nobody(run: Run) -> None:
    record = run.pick(run.final.events)
    run.drop(run.final.events, lambda one: one.event_id == record.event_id)


@TELLINGS.breaks(7)
def tell_what_was_never_committed(run: Run) -> None:
    record = run.pick(run.final.events)
    run.change(run.final.events, record, event_id="made-up")


@TELLINGS.breaks(7)
def tell_of_another_end(run: Run) -> None:
    record = run.pick(run.final.events, lambda one: one.type == "job.succeeded")
    run.change(run.final.events, record, type="job.cancelled")


@TELLINGS.breaks(7)
def tell_of_an_older_claim(run: Run) -> None:
    record = run.pick(run.final.events, lambda one: one.fence > 1)
    run.change(run.final.events, record, fence=record.fence - 1)


@TELLINGS.breaks(7)
def tell_another_reason(run: Run) -> None:
    record = run.pick(run.final.events, lambda one: one.reason)
    run.change(run.final.events, record, reason="worker_tired")


@TELLINGS.breaks(7)
def tell_before_it_ended(run: Run) -> None:
    record = run.pick(run.final.events, lambda one: one.at)
    run.change(run.final.events, record, at=(record.at or 0.0) - 20)


@TELLINGS.breaks(7)
def tell_of_another_job(run: Run) -> None:
    record = run.pick(run.final.events)
    other = run.pick(run.final.ended, lambda row: row.tenant == record.tenant and row.job != record.job)
    run.change(run.final.events, record, job=other.job)


@TELLINGS.breaks(8)
def forget_a_delivery(run: Run) -> None:
    endpoints = {endpoint.endpoint for endpoint in run.final.endpoints if endpoint.until is None}
    row = run.pick(run.final.deliveries, lambda one: one.endpoint in endpoints)
    run.drop(run.final.deliveries, lambda one: one is row)


@TELLINGS.breaks(8)
def deliver_twice(run: Run) -> None:
    run.final.deliveries.append(replace(run.pick(run.final.deliveries), delivery="made-up"))


@TELLINGS.breaks(8)
def leave_a_delivery_open(run: Run) -> None:
    run.change(run.final.deliveries, run.pick(run.final.deliveries), state="retrying")


@TELLINGS.breaks(8)
def deliver_what_never_happened(run: Run) -> None:
    run.final.deliveries.append(replace(run.pick(run.final.deliveries), event_id="made-up", delivery="made-up"))


@TELLINGS.breaks(8)
def never_call(run: Run) -> None:
    call = _taken(run)
    run.drop(run.events, lambda one: one is call)


@TELLINGS.breaks(8)
def call_again_in_calm(run: Run) -> None:
    call = _taken(run)
    run.change(run.final.deliveries, _delivery(run, call), fence=2)
    run.tell(replace(call, at=call.at + 1))


@TELLINGS.breaks(8)
def call_more_often_than_claimed(run: Run) -> None:
    call = run.pick(run.events, lambda one: isinstance(one, Received) and not run.calm(one.at))
    run.tell(*(replace(call, at=call.at + number / 100) for number in range(1, 4)))


@TELLINGS.breaks(8)
def charge_a_call_that_never_came(run: Run) -> None:
    call = run.pick(run.events, lambda one: isinstance(one, Received) and one.answered == 500 and run.calm(one.at))
    run.drop(run.events, lambda one: one is call)


@TELLINGS.breaks(8)
def sign_wrongly(run: Run) -> None:
    run.change(run.events, _taken(run), signed=False)


@TELLINGS.breaks(8)
def call_about_nothing(run: Run) -> None:
    run.tell(replace(_taken(run), webhook_id="made-up"))


@TELLINGS.breaks(8)
def call_about_another_end(run: Run) -> None:
    run.change(run.events, _taken(run), event_type="job.vanished")


@TELLINGS.breaks(8)
def call_before_the_end(run: Run) -> None:
    call = _taken(run)
    run.change(run.events, call, at=call.at - 20)


@TELLINGS.breaks(8)
def give_up_what_was_taken(run: Run) -> None:
    row = _delivery(run, _taken(run))
    run.change(run.final.deliveries, row, state="failed")


@TELLINGS.breaks(10)
def read_a_record_too_few(run: Run) -> None:
    read = run.pick(run.final.partitions, lambda one: one.count)
    run.change(run.final.partitions, read, count=read.count - 1)


@TELLINGS.breaks(10)
def read_a_record_twice(run: Run) -> None:
    assert run.final.events is not None, "good runs have all their topics read"
    run.final.events.append(run.pick(run.final.events))


@TELLINGS.breaks(10)
def fail_without_a_dead_letter(run: Run) -> None:
    letter = run.pick(run.final.dead_letters, lambda letter: letter.kind == "job")
    run.drop(run.final.dead_letters, lambda one: one is letter)


@TELLINGS.breaks(10)
def make_a_dead_letter_of_a_success(run: Run) -> None:
    row = run.pick(run.final.ended, lambda row: row.state == "succeeded")
    run.final.dead_letters.append(DeadLetterRow(row.tenant, "job", row.job, "made-up"))


@TELLINGS.breaks(10)
def keep_a_redriven_dead_letter(run: Run) -> None:
    redrive = run.pick(run.final.redrives)
    run.final.dead_letters.append(DeadLetterRow(redrive.tenant, "job", redrive.dead, "made-up"))


@TELLINGS.breaks(10)
def copy_no_dead_job(run: Run) -> None:
    record = run.pick(run.final.dead_jobs)
    run.drop(run.final.dead_jobs, lambda one: one.event_id == record.event_id)


@TELLINGS.breaks(10)
def copy_a_job_that_succeeded(run: Run) -> None:
    assert run.final.dead_jobs is not None, "good runs have all their topics read"
    record = run.pick(run.final.events, lambda one: one.type == "job.succeeded")
    run.final.dead_jobs.append(replace(record, partition=0, offset=1))


@TELLINGS.breaks(10)
def copy_no_dead_delivery(run: Run) -> None:
    record = run.pick(run.final.dead_deliveries)
    run.drop(run.final.dead_deliveries, lambda one: one is record)


@TELLINGS.breaks(10)
def copy_a_delivery_that_never_was(run: Run) -> None:
    record = run.pick(run.final.dead_deliveries)
    run.change(run.final.dead_deliveries, record, event_id="made-up")


@TELLINGS.breaks(10)
def fail_to_deliver_without_a_dead_letter(run: Run) -> None:
    letter = run.pick(run.final.dead_letters, lambda letter: letter.kind == "delivery")
    run.drop(run.final.dead_letters, lambda one: one is letter)


@TELLINGS.breaks(10)
def make_a_dead_letter_of_a_taken_delivery(run: Run) -> None:
    row = run.pick(run.final.deliveries, lambda row: row.state == "succeeded")
    run.final.dead_letters.append(DeadLetterRow(row.tenant, "delivery", row.delivery, "made-up"))
