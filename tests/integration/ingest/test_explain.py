"""Why a job isn't running, by HTTP: each cause as the database has it; another tenant's job isn't there."""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from barnabas.domain.attempts import AttemptKind
from barnabas.domain.jobs import JobState
from barnabas.postgres.turns import Finishing, Releasing
from tests.integration.ingest.support import Caller, RunningIngest
from tests.support.turns import claim_jobs, finish_jobs, release_jobs
from tests.support.world import World, new_id

ERROR = b'{"code":"timed_out","message":"too long","retryable":true}'


class Scene:
    """A tenant, a job type that nobody else has, and a worker for it that does as it is told."""

    def __init__(self, world: World, ingest: RunningIngest, tenant: Caller) -> None:
        self.world = world
        self.ingest = ingest
        self.tenant = tenant
        self.type = f"type-{uuid.uuid4().hex}"
        self.worker_id = UUID(int=0)

    async def start_worker(self) -> UUID:
        self.worker_id = await self.world.worker(self.type, slots=8)
        return self.worker_id

    @property
    def tenant_id(self) -> UUID:
        assert self.tenant.tenant_id is not None
        return self.tenant.tenant_id

    async def submit(self, count: int = 1, **fields: Any) -> list[str]:
        return [await self.tenant.submit(type=self.type, **fields) for _ in range(count)]

    async def limit(self, **limits: Any) -> None:
        path = f"/v1/admin/tenants/{self.tenant_id}/limits"
        assert (await self.ingest.admin.call("PUT", path, limits)).status == 200

    async def limit_type(self, **limits: Any) -> None:
        await self.limit(types={self.type: limits})

    async def claim(self, *jobs: str, worker_id: UUID | None = None, job_type: str | None = None) -> int:
        """How many of them run now."""
        numbers = {await self.world.type_id(job_type or self.type): 60_000}
        async with self.world.engine.session() as session:
            keys = [(self.tenant_id, UUID(job)) for job in jobs]
            return len((await claim_jobs(session, worker_id or self.worker_id, new_id(), keys, numbers)).claimed)

    async def finish(self, job: str, state: JobState, **known: Any) -> None:
        async with self.world.engine.session() as session:
            done = Finishing(self.tenant_id, UUID(job), 1, state, new_id(), **known)
            assert (await finish_jobs(session, self.worker_id, [done])).closed == {UUID(job)}

    async def release(self, job: str, kind: AttemptKind, due_at: datetime) -> None:
        async with self.world.engine.session() as session:
            error = ERROR if kind is AttemptKind.ATTEMPT else None
            await release_jobs(
                session, self.worker_id, [Releasing(self.tenant_id, UUID(job), 1, kind, due_at, error=error)]
            )

    async def explain(self, job: str) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
        """The cause, its details, and the whole answer."""
        told = await self.tenant.get(f"/v1/jobs/{job}/explain")
        assert told.status == 200, told.body
        assert told.body["id"] == job
        assert told.body["message"].endswith(".")
        return told.body["cause"], told.body["details"], told.body


@pytest.fixture
async def scene(module_world: World, ingest: RunningIngest, tenant: Caller) -> Scene:
    made = Scene(module_world, ingest, tenant)
    await made.start_worker()
    return made


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_an_ended_job_says_how(scene: Scene) -> None:
    good, bad, unwanted = await scene.submit(3, max_attempts=4)
    await scene.claim(good, bad)
    await scene.finish(good, JobState.SUCCEEDED, result=b"1")
    await scene.finish(bad, JobState.FAILED, error=ERROR, reason="permanent_error")
    await scene.tenant.post(f"/v1/jobs/{unwanted}/cancel")

    told = [await scene.explain(job) for job in (good, bad, unwanted)]

    assert [cause for cause, _, _ in told] == ["finished"] * 3
    assert [details["outcome"] for _, details, _ in told] == ["succeeded", "failed", "cancelled"]
    assert [body["status"] for _, _, body in told] == ["succeeded", "failed", "cancelled"]
    _, details, body = told[1]
    assert (details["error"], details["reason"], details["attempt"]) == ("timed_out", "permanent_error", 1)
    assert details["max_attempts"] == 4
    assert body["message"] == "The job has failed in attempt 1 of 4: timed_out (permanent_error)."


async def test_a_running_job_says_where_and_until_when(scene: Scene) -> None:
    (job,) = await scene.submit(max_attempts=3)
    await scene.claim(job)

    cause, details, body = await scene.explain(job)
    await scene.tenant.post(f"/v1/jobs/{job}/cancel")
    _, asked, _ = await scene.explain(job)

    assert (cause, body["status"]) == ("running", "running")
    assert details["worker_id"] == str(scene.worker_id)
    assert (details["attempt"], details["max_attempts"]) == (1, 3)
    assert at(details["deadline"]) - at(details["started_at"]) == timedelta(seconds=60)
    assert (details["cancel_requested"], asked["cancel_requested"]) == (False, True)


async def test_a_job_that_is_due_later_says_when(scene: Scene) -> None:
    due = await scene.world.now() + timedelta(hours=1)
    by_submission, by_handler = (await scene.submit(run_at=due.isoformat()))[0], (await scene.submit())[0]
    await scene.claim(by_handler)
    await scene.release(by_handler, AttemptKind.SNOOZE, due)

    first, second = await scene.explain(by_submission), await scene.explain(by_handler)

    assert (first[0], second[0]) == ("scheduled", "scheduled")
    assert (first[1]["was_snoozed"], second[1]["was_snoozed"]) == (False, True)
    assert at(first[2]["until"]) == at(second[2]["until"]) == due


async def test_a_job_in_its_backoff_says_what_failed(scene: Scene) -> None:
    due = await scene.world.now() + timedelta(seconds=90)
    (job,) = await scene.submit(max_attempts=5)
    await scene.claim(job)
    await scene.release(job, AttemptKind.ATTEMPT, due)

    cause, details, body = await scene.explain(job)

    assert (cause, body["status"]) == ("backoff", "retrying")
    assert (details["attempt"], details["max_attempts"], details["error"]) == (1, 5, "timed_out")
    assert at(body["until"]) == due


async def test_a_job_behind_its_ordering_key_says_whose_turn_it_is(scene: Scene) -> None:
    first, second, third = await scene.submit(3, ordering_key="account-7")
    await scene.claim(first)

    _, _, leader = await scene.explain(first)
    told = [await scene.explain(job) for job in (second, third)]

    assert leader["cause"] == "running"
    assert [cause for cause, _, _ in told] == ["ordering_key"] * 2
    assert [details["before"] for _, details, _ in told] == [1, 2]
    assert told[0][1]["turn_of"] == told[1][1]["turn_of"] == first
    assert (told[0][1]["turn_status"], told[0][1]["ordering_key"]) == ("running", "account-7")


async def test_a_job_at_its_tenants_limit_says_what_is_used_and_its_place(scene: Scene) -> None:
    jobs = await scene.submit(4)
    await scene.limit(concurrency=1)
    running = await scene.claim(*jobs[:3])

    told = [await scene.explain(job) for job in jobs[1:]]

    assert running == 1
    assert [cause for cause, _, _ in told] == ["tenant_concurrency"] * 3
    assert [(details["running"], details["allowed"]) for _, details, _ in told] == [(1, 1)] * 3
    # The last has not been refused yet: no worker has asked for it.
    assert [details["before"] for _, details, _ in told] == [0, 1, None]
    assert [details["since"] is None for _, details, _ in told] == [False, False, True]


async def test_a_job_at_its_types_limit_names_the_type(scene: Scene) -> None:
    jobs = await scene.submit(3)
    await scene.limit_type(concurrency=1)
    running = await scene.claim(*jobs)

    cause, details, _ = await scene.explain(jobs[2])

    assert (running, cause) == (1, "type_concurrency")
    assert (details["type"], details["running"], details["allowed"], details["before"]) == (scene.type, 1, 1, 1)


@pytest.mark.parametrize("scope", ["tenant", "type"])
async def test_a_job_at_a_full_window_says_when_it_opens(scene: Scene, scope: str) -> None:
    jobs = await scene.submit(3)
    await (scene.limit if scope == "tenant" else scene.limit_type)(starts_per_minute=1)
    running = await scene.claim(*jobs)
    started: datetime = await scene.world.superuser.fetchval(
        "SELECT log_at[1] FROM gates WHERE tenant_id = $1", scene.tenant_id
    )

    told = [await scene.explain(job) for job in jobs[1:]]

    assert running == 1
    assert [cause for cause, _, _ in told] == [f"{scope}_starts"] * 2
    assert [at(body["until"]) for _, _, body in told] == [started + timedelta(minutes=n) for n in (1, 2)]
    details = told[0][1]
    assert (details["starts"], details["allowed"], details["window_seconds"]) == (1, 1, 60.0)


async def test_a_job_that_no_live_worker_has_says_who_is_there(scene: Scene) -> None:
    foreign = f"other-{scene.type}"
    unseen, refused = [await scene.tenant.submit(type=foreign) for _ in range(2)]
    # It was offered to a worker that doesn't have it, which parked it.
    await scene.claim(refused)

    told = [await scene.explain(job) for job in (unseen, refused)]
    await scene.world.worker(foreign)
    since = await scene.explain(unseen)

    assert [cause for cause, _, _ in told] == ["no_worker"] * 2
    details = told[0][1]
    assert (details["type"], details["queue"]) == (foreign, "default")
    assert details["workers_of_queue"] >= 1
    assert len(details["worker_ids"]) == min(20, details["workers_of_queue"])
    assert since[0] == "queued"


async def test_a_worker_of_another_queue_or_whose_lease_is_over_is_none(scene: Scene) -> None:
    (job,) = await scene.submit()
    before = await scene.explain(job)
    await scene.world.superuser.execute("UPDATE workers SET queue_ids = '{7}' WHERE worker_id = $1", scene.worker_id)
    elsewhere = await scene.explain(job)
    await scene.world.superuser.execute(
        "UPDATE workers SET queue_ids = '{0}', lease_until = now() WHERE worker_id = $1", scene.worker_id
    )
    over = await scene.explain(job)

    assert [told[0] for told in (before, elsewhere, over)] == ["queued", "no_worker", "no_worker"]


async def test_a_job_in_the_backlog_says_its_place(scene: Scene) -> None:
    jobs = await scene.submit(3)
    await scene.world.superuser.execute(
        "INSERT INTO waiting (tenant_id, kind, line, precedence, job_id)"
        " SELECT $1, 4, 0, 2, job_id FROM unnest($2::uuid[]) AS job_id",
        scene.tenant_id,
        [UUID(job) for job in jobs],
    )

    told = [await scene.explain(job) for job in jobs]

    assert [cause for cause, _, _ in told] == ["backlog"] * 3
    assert [details["before"] for _, details, _ in told] == [0, 1, 2]
    assert (told[0][1]["workers"], told[0][1]["queue"]) == (1, "default")


async def test_a_ready_job_says_how_many_are_before_it(scene: Scene) -> None:
    medium = await scene.submit(2)
    (critical,) = await scene.submit(priority="critical")
    due = await scene.world.now() + timedelta(hours=1)
    await scene.submit(run_at=due.isoformat())
    await scene.submit(priority="low")

    told = [await scene.explain(job) for job in (*medium, critical)]

    assert [cause for cause, _, _ in told] == ["queued"] * 3
    assert [details["before"] for _, details, _ in told] == [1, 2, 0]
    assert [details["before_is_minimum"] for _, details, _ in told] == [False] * 3
    assert (told[0][1]["workers"], told[0][1]["slots"]) == (1, 8)
    assert told[1][1]["oldest_ready_at"] is not None
    assert told[2][1]["oldest_ready_at"] is None


async def test_a_job_that_kafka_has_not_been_told_of_says_so(scene: Scene) -> None:
    (job,) = await scene.world.insert(scene.tenant_id, scene.type)
    untold = await scene.explain(str(job))
    await scene.world.superuser.execute("DELETE FROM outbox WHERE $1 = ANY (ref_ids)", job)
    told = await scene.explain(str(job))

    assert (untold[0], untold[1]["is_untold"], told[1]["is_untold"]) == ("queued", True, False)
    assert "Kafka is still to be told" in untold[2]["message"]


async def test_a_place_is_counted_up_to_ten_thousand(scene: Scene) -> None:
    await scene.world.superuser.execute(
        "INSERT INTO jobs (tenant_id, job_id, ready_at, type_id, state, priority)"
        " SELECT $1, uuidv7(interval '-1 hour'), now(), $2, 2, 1 FROM generate_series(1, 10500)",
        scene.tenant_id,
        await scene.world.type_id(scene.type),
    )
    (job,) = await scene.submit()

    cause, details, body = await scene.explain(job)

    assert (cause, details["before"], details["before_is_minimum"]) == ("queued", 10_000, True)
    assert "at least 10000 of this tenant's jobs" in body["message"]


async def test_another_tenants_job_is_not_there(scene: Scene, ingest: RunningIngest) -> None:
    (job,) = await scene.submit()
    stranger = await ingest.tenant()

    refusals = [
        await stranger.get(f"/v1/jobs/{job}/explain"),
        await scene.tenant.get(f"/v1/jobs/{uuid.uuid4()}/explain"),
        await scene.tenant.get("/v1/jobs/nothing/explain"),
        await ingest.nobody.get(f"/v1/jobs/{job}/explain"),
    ]

    assert [(reply.status, reply.code) for reply in refusals] == [(404, "not_found")] * 3 + [(401, "unauthorized")]
