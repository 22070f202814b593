"""Pools: a worker runs the jobs of its own queues, and of no other."""

import uuid
from collections.abc import AsyncIterator

import pytest

from barnabas.contract import topics
from barnabas.contract.telling import job_record
from barnabas.errors import SettingsError
from barnabas.kafka.admin import Admin
from barnabas.kafka.routes import Routes
from barnabas.kafka.teller import Teller
from barnabas.postgres.queues import TooManyQueuesError
from barnabas.runtime.settings import load
from barnabas_worker.resources import open_resources
from barnabas_worker.settings import WorkerSettings
from tests.integration.worker.conftest import StartWorker
from tests.support.eventually import eventually
from tests.support.world import World, new_id


@pytest.fixture
async def queue(world: World) -> AsyncIterator[str]:
    """The name of a queue that no other test has; its topics go at the end."""
    name = f"gpu-{uuid.uuid4().hex[:8]}"
    yield name
    async with Admin(world.kafka) as admin:
        await admin.delete_topics([topic.name for topic in topics.topics_of_queue(name)])


async def ran_by(world: World, tenant_id: uuid.UUID) -> dict[uuid.UUID, set[uuid.UUID]]:
    """Which jobs each worker has ended."""
    found: dict[uuid.UUID, set[uuid.UUID]] = {}
    for row in await world.superuser.fetch("SELECT worker_id, job_id FROM job_results WHERE tenant_id = $1", tenant_id):
        found.setdefault(row["worker_id"], set()).add(row["job_id"])
    return found


async def topics_exist(world: World, queue: str) -> bool:
    names = {topic.name for topic in topics.topics_of_queue(queue)}
    async with Admin(world.kafka) as admin:
        return names <= await admin.call(lambda client: set(client.list_topics(timeout=10).topics))


async def test_jobs_of_a_queue_run_on_its_pool_and_on_no_other(
    world: World, start_worker: StartWorker, queue: str
) -> None:
    tenant = await world.tenant()
    async with Admin(world.kafka) as admin:
        await admin.ensure_topics(topics=topics.topics_of_queue(queue))
    plain = await start_worker()
    theirs = set(await world.submit(tenant, "count", count=20, queue=queue))
    ours = set(await world.submit(tenant, "count", count=20))
    await world.until(tenant, queued=20, succeeded=20)
    assert await ran_by(world, tenant) == {plain.worker_id: ours}

    gpu = await start_worker(QUEUES=queue)
    await world.until(tenant, succeeded=40)

    assert await ran_by(world, tenant) == {plain.worker_id: ours, gpu.worker_id: theirs}
    later = set(await world.submit(tenant, "count", count=10))
    await world.until(tenant, succeeded=50)
    assert (await ran_by(world, tenant))[plain.worker_id] == ours | later


async def test_a_pool_may_be_started_before_the_first_job_of_its_queue(
    world: World, start_worker: StartWorker, queue: str
) -> None:
    worker = await start_worker(QUEUES=f"{queue},default")

    await eventually(lambda: topics_exist(world, queue))
    announced = await world.superuser.fetchval("SELECT queue_ids FROM workers WHERE worker_id = $1", worker.worker_id)
    made = await world.superuser.fetchval("SELECT queue_id FROM queues WHERE name = $1", queue)
    tenant = await world.tenant()
    await world.submit(tenant, "count", count=5, queue=queue)
    await world.submit(tenant, "count", count=5)
    await world.until(tenant, succeeded=10)

    assert announced == [made, 0]
    assert set(await ran_by(world, tenant)) == {worker.worker_id}


async def test_jobs_of_a_queue_that_is_younger_than_a_worker_are_left_to_the_relay_until_it_knows_the_name(
    world: World, start_worker: StartWorker, queue: str
) -> None:
    """As when a turn wakes a job of another pool: at the tenant's limit jobs of all its queues wait in one line."""
    worker = await start_worker()
    assert worker.resources is not None
    tenant, known = await world.tenant(), worker.resources.queues
    teller = Teller(worker.resources.producer, Routes(known.name_of))
    number = await world.queue(queue)
    async with Admin(world.kafka) as admin:
        await admin.ensure_topics(topics=topics.topics_of_queue(queue))
    record = job_record(tenant, new_id(), 0, 1, number)

    teller.tell(1, [record])
    found = await eventually(lambda: [each.name for each in known.known if each.queue_id == number])
    teller.tell(2, [record])
    await eventually(lambda: teller.pending)

    assert found == [queue]
    assert teller.take_acknowledged() == [2]


async def test_a_worker_makes_no_queue_above_the_bound(world: World, queue: str) -> None:
    await world.queue(queue)
    values = {"KAFKA": world.kafka, "POSTGRES": world.logins.engine_dsn, "QUEUES": f"{queue}-2", "QUEUES_MAX": "2"}
    settings = load(WorkerSettings, {f"BARNABAS_{key}": value for key, value in values.items()})

    with pytest.raises(TooManyQueuesError):
        async with open_resources(settings):
            pass


@pytest.mark.parametrize("names", ["Default", "a_b", ",", "a b", "gpu,-x"])
def test_names_that_no_queue_can_have_are_refused_at_the_start(names: str) -> None:
    environment = {"BARNABAS_KAFKA": "k:1", "BARNABAS_POSTGRES": "postgresql://p", "BARNABAS_QUEUES": names}

    with pytest.raises(SettingsError, match="BARNABAS_QUEUES"):
        load(WorkerSettings, environment)


def test_queues_are_named_with_commas_and_each_counts_once() -> None:
    environment = {"BARNABAS_KAFKA": "k:1", "BARNABAS_POSTGRES": "postgresql://p"}

    assert load(WorkerSettings, environment).queues == ("default",)
    assert load(WorkerSettings, environment | {"BARNABAS_QUEUES": " gpu, default,gpu "}).queues == ("gpu", "default")
