"""What becomes of a job in a worker, by the way in which its attempt goes."""

import json
import threading

from barnabas.contract import topics
from barnabas.contract.records import decode
from tests.integration.worker.conftest import StartWorker
from tests.support import handlers
from tests.support.eventually import eventually
from tests.support.topics import TopicReader
from tests.support.world import World

# A thread that hasn't begun when its time is up was never stuck.
_THREAD_STARTS_MS = 2_000


async def test_a_job_runs_once_and_its_end_is_told(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    async with TopicReader(world.kafka, topics.RESULTS.name) as results:
        await start_worker()
        (job,) = await world.submit(tenant, "add", b'{"a": 2, "b": 3}')
        event = json.loads(
            (await results.until(lambda record: str(job).encode() in (record.value or b""))).value or b""
        )
    stored = await world.job(tenant, job)

    assert bytes(stored.view.result) == b"5"
    assert (stored.view.status, stored.view.attempt) == ("succeeded", 1)
    assert event == {
        "schema": 1,
        "id": str(stored.event_id),
        "type": "job.succeeded",
        "tenant_id": str(tenant),
        "job_id": str(job),
        "job_type": "add",
        "attempt": 1,
        "fence": 1,
        "reason": None,
    }


async def test_the_records_of_a_job_may_come_twice(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    await start_worker()
    jobs = await world.submit(tenant, "count", count=20)
    await world.publish(tenant, jobs, times=3)

    await world.until(tenant, succeeded=20)

    assert {handlers.started[str(job)] for job in jobs} == {1}


async def test_a_retryable_error_waits_for_its_backoff_in_the_retries_topic(
    world: World, start_worker: StartWorker
) -> None:
    tenant = await world.tenant()
    async with TopicReader(world.kafka, topics.RETRIES.name) as retries:
        await start_worker()
        (job,) = await world.submit(tenant, "later")
        record = await retries.until(lambda record: job.bytes in (record.value or b""))
    await world.until(tenant, retrying=1)
    stored = await world.superuser.fetchrow("SELECT attempt, due_at, ready_at FROM jobs WHERE job_id = $1", job)
    told = decode(record.value)

    assert stored["attempt"] == 1
    assert abs(told.due_ms / 1000 - stored["due_at"].timestamp()) < 0.002
    assert await world.superuser.fetchval("SELECT count(*) FROM timers WHERE ref_id = $1", job) == 1


async def test_a_snooze_is_not_an_attempt(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    await start_worker()
    (job,) = await world.submit(tenant, "snooze")
    await world.until(tenant, scheduled=1)

    async def due() -> bool:
        told: bool = await world.superuser.fetchval("SELECT due_at <= now() FROM jobs WHERE job_id = $1", job)
        return told

    await eventually(due)
    await world.publish(tenant, [job])
    await world.until(tenant, succeeded=1)

    assert bytes((await world.job(tenant, job)).view.result) == b'"attempt 1"'


async def test_a_permanent_error_is_a_dead_letter_at_once(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    async with TopicReader(world.kafka, topics.JOBS_DLQ.name) as dead:
        await start_worker()
        (job,) = await world.submit(tenant, "never")
        record = await dead.until(lambda record: str(job).encode() in (record.value or b""))
    stored = await world.job(tenant, job)

    assert json.loads(bytes(stored.view.error)) == {"code": "never_works", "message": "no", "retryable": False}
    assert (stored.view.status, stored.reason) == ("failed", "permanent_error")
    assert ("reason", b"permanent_error") in record.headers
    assert await world.superuser.fetchval("SELECT reason FROM dead_letters WHERE ref = $1", job) == "permanent_error"


async def test_a_payload_that_does_not_fit_its_model_is_a_permanent_error(
    world: World, start_worker: StartWorker
) -> None:
    tenant = await world.tenant()
    await start_worker()
    (job,) = await world.submit(tenant, "add", b'{"a": 2, "b": "secret-value"}')
    await world.until(tenant, failed=1)
    error = json.loads(bytes((await world.job(tenant, job)).view.error))

    assert error["code"] == "payload_invalid"
    assert "b" in error["message"]
    assert "secret-value" not in error["message"]


async def test_an_attempt_past_its_deadline_ends_although_its_handler_goes_on(
    world: World, start_worker: StartWorker
) -> None:
    tenant = await world.tenant()
    handlers.gates["held"] = threading.Event()
    worker = await start_worker(SLOTS="8")
    (slow,) = await world.submit(tenant, "slow")
    (blocked,) = await world.submit(tenant, "block_thread", b'{"gate": "held"}', timeout_ms=_THREAD_STARTS_MS)
    await world.until(tenant, failed=2)
    assert worker.resources is not None
    assert worker.resources.slots is not None
    slots = worker.resources.slots
    stuck_meanwhile = slots.stuck
    handlers.gates["held"].set()
    await eventually(lambda: slots.busy == 0)

    assert stuck_meanwhile == 1
    for job in (slow, blocked):
        assert json.loads(bytes((await world.job(tenant, job)).view.error))["code"] == "timeout"


async def test_a_worker_with_too_many_stuck_threads_drains_and_ends(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    handlers.gates["stuck"] = threading.Event()
    worker = await start_worker(SLOTS="4", DRAIN_SECONDS="30")
    await world.submit(tenant, "block_thread", b'{"gate": "stuck"}', count=2, timeout_ms=_THREAD_STARTS_MS)

    code = await worker.ended()
    handlers.gates["stuck"].set()

    assert code == 0
    assert await world.states(tenant) == {"failed": 2}


async def test_a_job_that_kills_its_process_is_a_dead_letter_after_exactly_three_losses(
    world: World, start_worker: StartWorker
) -> None:
    tenant = await world.tenant()
    await start_worker()
    (job,) = await world.submit(tenant, "die")
    neighbours = await world.submit(tenant, "count", count=5)

    await world.until(tenant, failed=1, succeeded=5)
    stored = await world.job(tenant, job)

    assert (stored.reason, stored.losses, stored.view.attempt) == ("worker_lost", 3, 0)
    assert {handlers.started[str(neighbour)] for neighbour in neighbours} == {1}


async def test_a_record_that_nobody_can_read_stops_nothing(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    await start_worker()
    topic = topics.JOBS[1].name
    await world.producer.send(topic, [(str(tenant).encode(), value, None) for value in (b"", b"\x01nonsense", b"{}")])

    await world.submit(tenant, "count", count=3)

    await world.until(tenant, succeeded=3)


async def test_progress_is_shown_while_the_attempt_runs(world: World, start_worker: StartWorker) -> None:
    tenant = await world.tenant()
    await start_worker()
    (job,) = await world.submit(tenant, "report")

    stored = await eventually(lambda: world.job(tenant, job), until=lambda stored: stored.view.progress is not None)

    assert stored.view.progress is not None
    assert (stored.view.progress.percent, stored.view.progress.message) == (40.0, "page 4")
