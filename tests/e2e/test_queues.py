"""A pool of workers for a queue, as an operator starts one: its jobs run there, retries too, and nowhere else."""

from uuid import UUID

import psutil
import pytest

from barnabas.domain.backoff import RetryPolicy
from tests.e2e.test_command_line import run, started
from tests.support.stack import Stack

# Only a failure takes that long: a starved machine is slow to start a worker.
_READY_SECONDS = 180.0

pytestmark = pytest.mark.timeout(600)


async def test_a_job_of_a_queue_runs_on_that_queues_pool_only(stack: Stack) -> None:
    tenant, key = await stack.tenant("queues")
    env = {name: value for name, value in psutil.Process(stack.pid("worker")).environ().items() if "BARNABAS" in name}
    async with stack.client(key) as client, stack.database() as database:
        retried = await client.submit(
            "fail", {"times": 1}, queue="gpu", retry=RetryPolicy(base_seconds=0.2, factor=1.0, cap_seconds=0.2)
        )
        plain = await client.submit("echo", 1)
        assert (await client.wait(plain.id, timeout=_READY_SECONDS)).status == "succeeded"
        assert (await client.get(retried.id)).status == "queued"
        assert (await client.get(retried.id)).queue == "gpu"
        changed = await run(stack, "queues", "set", "gpu", "--critical", "70", "--json")
        assert changed.json[0]["shares"]["critical"] == 70

        async with started("worker", "--queues", "gpu", env=env | {"BARNABAS_OPS_PORT": "0"}) as process:
            ended = await client.wait(retried.id, timeout=_READY_SECONDS)
            more = [await client.submit("echo", number, queue=queue) for queue in ("gpu", None) for number in range(5)]
            for each in more:
                assert (await client.wait(each.id, timeout=_READY_SECONDS)).status == "succeeded"
            rows = await database.fetch(
                "SELECT job_id, worker_id, (SELECT name FROM queues WHERE queue_id = sent.queue_id) AS queue"
                " FROM job_results JOIN job_payloads AS sent USING (tenant_id, job_id) WHERE tenant_id = $1",
                UUID(tenant),
            )
            workers = {
                row["worker_id"]: row["pid"] for row in await database.fetch("SELECT worker_id, pid FROM workers")
            }
            pool = process.pid

    assert (ended.status, ended.attempt) == ("succeeded", 2)
    by_queue = {
        queue: {workers[row["worker_id"]] for row in rows if row["queue"] == queue} for queue in ("gpu", "default")
    }
    assert by_queue == {"gpu": {pool}, "default": {stack.pid("worker")}}
    assert len(rows) == 12
