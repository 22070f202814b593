"""What `verify` finds: nothing in a system that lives, and each thing that nobody would bring back."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from barnabas.domain.attempts import AttemptKind
from barnabas.domain.jobs import JobState
from barnabas.postgres.submissions import Submission, accept_keyed_jobs
from barnabas.postgres.turns import Claim, Finishing, Releasing, Turn, take_turn
from barnabas.postgres.verifying import CHECKS, Checked, VerifyRefusedError, verify
from tests.support.world import World, new_id


@dataclass(frozen=True, slots=True)
class Scene:
    """One tenant with a job in each state that a living system has, and what they are called."""

    world: World
    tenant: UUID
    worker: UUID
    names: dict[str, UUID]

    async def find(self, *, dsn: str | None = None) -> list[Checked]:
        """Every check, without a second look."""
        address = dsn or self.world.logins.engine_dsn
        return await verify(address, everything=True, patience_seconds=0.0, check_seconds=60.0)

    async def found(self) -> dict[str, list[UUID | None]]:
        """By check what it found."""
        checked = await self.find()
        assert [each.reason for each in checked] == [None] * len(CHECKS)
        return {each.check.name: [one.ref_id for one in each.findings] for each in checked if each.findings}


def submission(
    tenant: UUID, type_id: int, *, due_at: datetime | None = None, ordering_key: str | None = None
) -> Submission:
    return Submission(tenant, new_id(), type_id, 1, 0, 60_000, 3, due_at, b"{}", None, None, None, ordering_key)


@pytest.fixture
async def scene(world: World) -> Scene:
    """A tenant that may run four at once, with jobs everywhere, and a worker that holds some of them."""
    tenant = await world.tenant(running_at_most=3)
    worker, number = await world.worker("echo"), await world.type_id("echo")
    soon = await world.now() + timedelta(hours=2)
    order = ("running", "failed", "succeeded", "turn", "parked", "retrying", "behind", "scheduled", "queued")
    jobs = {
        name: submission(
            tenant,
            number,
            due_at=soon if name == "scheduled" else None,
            ordering_key="a" if name in {"turn", "behind"} else None,
        )
        for name in order
    }
    idempotency = [("once", b"1") if name == "queued" else None for name in jobs]
    async with world.engine.session() as session:
        await accept_keyed_jobs(session, list(jobs.values()), idempotency)
        ids = {name: job.job_id for name, job in jobs.items()}

        async def turn(*names: str, **fields: object) -> None:
            keys = [(tenant, ids[name]) for name in names]
            claim = Claim(batch_id=new_id(), keys=keys, types={number: 60_000}) if names else None
            await take_turn(session, Turn(worker_id=worker, claim=claim, **fields))  # type: ignore[arg-type]

        def end(name: str, state: JobState, **fields: object) -> Finishing:
            return Finishing(tenant, ids[name], 1, state, new_id(), **fields)  # type: ignore[arg-type]

        await turn("failed", "succeeded", "retrying")
        failed = end("failed", JobState.FAILED, error=b"{}", reason="permanent")
        later = Releasing(tenant, ids["retrying"], 1, AttemptKind.ATTEMPT, due_at=soon)
        await turn(finishing=[failed, end("succeeded", JobState.SUCCEEDED, result=b"1")], releasing=[later])
        await turn("running", "turn")
        # The third place is a stranger's, so that the next one waits at the gate.
        (stranger,) = await world.insert(tenant)
        ids["stranger"] = stranger
        await turn("stranger")
        await turn("parked")
    return Scene(world, tenant, worker, ids)


async def test_a_living_system_has_nothing_to_find(scene: Scene) -> None:
    states = await scene.world.states(scene.tenant)

    assert states == {
        "running": 3, "succeeded": 1, "failed": 1, "retrying": 1, "scheduled": 1, "queued": 2, "blocked": 1,
    }  # fmt: skip
    assert await scene.found() == {}


async def test_the_owner_of_the_tables_sees_what_the_engine_sees(scene: Scene) -> None:
    await scene.world.superuser.execute("DELETE FROM timers WHERE ref_id = $1", scene.names["scheduled"])

    checked = await scene.find(dsn=scene.world.logins.owner_dsn)

    assert [one.ref_id for each in checked for one in each.findings] == [scene.names["scheduled"]]


async def test_a_login_that_sees_one_tenant_only_is_refused(scene: Scene) -> None:
    with pytest.raises(VerifyRefusedError, match="barnabas_api"):
        await scene.find(dsn=scene.world.logins.api_dsn)


_ENDED = """
    INSERT INTO job_results (tenant_id, job_id, event_id, finished_at, fence, type_id, state, priority, queue_id,
                             attempt, losses)
    SELECT tenant_id, job_id, uuidv7(), now(), fence, type_id, 7, priority, queue_id, attempt, losses
"""
_DELIVERY = """
    INSERT INTO deliveries (tenant_id, event_id, endpoint_id, delivery_id, job_id, fence, attempt, worker_id, state,
                            due_at)
    SELECT tenant_id, event_id, uuidv7(), job_id, job_id, 1, 1,
"""
_SUCCEEDED = "FROM job_results WHERE job_id = $succeeded"

# What breaks one thing, and by which check what is found then.
BREAKAGES: dict[str, tuple[str, str, str | None]] = {
    "a gate that counts one too many": ("UPDATE gates SET used = used + 1", "gates", None),
    "a gate that has forgotten a running job": ("UPDATE gates SET used = used - 1", "gates", None),
    "a running job that no batch names": (
        "UPDATE lease_batches SET tenant_ids = '{}', ref_ids = '{}' WHERE ref_ids && ARRAY[$stranger]",
        "running",
        "stranger",
    ),
    "a lease that nobody took back": (
        "UPDATE workers SET lease_until = now() - interval '1 second'",
        "leases",
        "worker",
    ),
    "a queue that is not there": ("UPDATE jobs SET queue_id = 31000 WHERE job_id = $queued", "stranded", "queued"),
    "a backoff without a timer": ("DELETE FROM timers WHERE ref_id = $retrying", "stranded", "retrying"),
    "a start time without a timer": ("DELETE FROM timers WHERE ref_id = $scheduled", "stranded", "scheduled"),
    "a blocked job in no line": ("DELETE FROM ordering WHERE job_id = $behind", "stranded", "behind"),
    "a gate that says that nobody waits": ("UPDATE gates SET crowded = false", "parked", "parked"),
    "a place in line of a job that is gone": ("DELETE FROM jobs WHERE job_id = $parked", "parked", "parked"),
    "a backlog that nobody fetches": (
        "UPDATE waiting SET kind = 4, line = 0 WHERE job_id = $parked",
        "parked",
        "parked",
    ),
    "a timer without its job": ("DELETE FROM jobs WHERE job_id = $scheduled", "timers", "scheduled"),
    "a line whose turn belongs to nobody": ("UPDATE ordering_keys SET job_id = $succeeded", "orders", "succeeded"),
    "a dead letter of a job that did not fail": (
        "UPDATE dead_letters SET ref = $succeeded",
        "dead_letters",
        "succeeded",
    ),
    "a dead letter that can't be redriven": (
        "DELETE FROM job_payloads WHERE job_id = $failed",
        "dead_letters",
        "failed",
    ),
    "an outbox row that nobody tells": (
        "UPDATE outbox SET created_at = created_at - interval '2 minutes' WHERE ref_ids && ARRAY[$stranger]",
        "outbox",
        None,
    ),
    "a job that has ended and runs": (_ENDED + "FROM jobs WHERE job_id = $running", "ended", "running"),
    "one attempt too many": ("UPDATE jobs SET attempt = 4, fence = 4 WHERE job_id = $queued", "attempts", "queued"),
    "a loss too many": ("UPDATE jobs SET losses = 3 WHERE job_id = $queued", "attempts", "queued"),
    "a key of a job that never was": ("UPDATE idempotency_keys SET job_id = $worker", "keys", "worker"),
    "an open job without its payload": ("DELETE FROM job_payloads WHERE job_id = $parked", "payloads", "parked"),
    "a job that ended twice": (_ENDED + _SUCCEEDED, "results", "succeeded"),
    "a delivery in nobody's hands": (_DELIVERY + "$worker, 2, NULL " + _SUCCEEDED, "deliveries", "succeeded"),
    "a delivery's backoff without a timer": (_DELIVERY + "NULL, 3, now() " + _SUCCEEDED, "deliveries", "succeeded"),
}


@pytest.mark.parametrize("what", BREAKAGES)
async def test_it_finds(scene: Scene, what: str) -> None:
    statement, check, broken = BREAKAGES[what]
    known = scene.names | {"worker": scene.worker}
    for name, ref_id in known.items():
        statement = statement.replace(f"${name}", f"'{ref_id}'::uuid")

    tag = await scene.world.superuser.execute(statement)

    assert tag.endswith(" 1"), "one thing was broken"
    assert await scene.found() == {check: [None if broken is None else known[broken]]}


async def test_it_finds_a_worker_that_went_without_its_batches(scene: Scene) -> None:
    await scene.world.superuser.execute("DELETE FROM workers")

    found = await scene.found()

    assert set(found) == {"running", "leases"}
    assert sorted(job for job in found["running"] if job) == sorted(
        scene.names[name] for name in ("running", "turn", "stranger")
    )


async def test_it_finds_an_end_that_an_endpoint_never_heard_of(scene: Scene) -> None:
    superuser, endpoint = scene.world.superuser, new_id()
    await superuser.execute(
        "INSERT INTO endpoints (tenant_id, endpoint_id, url, event_types, created_at)"
        " VALUES ($1, $2, 'https://example.com', ARRAY['job.failed'], now() - interval '1 hour')",
        scene.tenant,
        endpoint,
    )
    # An ended job never changes, so it is made a minute older by being made anew.
    await superuser.execute(
        "WITH old AS (DELETE FROM job_results WHERE state IN (5, 6) RETURNING *)"
        " INSERT INTO job_results (tenant_id, job_id, event_id, finished_at, fence, type_id, state, priority, queue_id,"
        " attempt, losses)"
        " SELECT tenant_id, job_id, event_id, finished_at - interval '1 minute', fence, type_id, state, priority,"
        " queue_id, attempt, losses FROM old"
    )

    assert await scene.found() == {"undelivered": [scene.names["failed"]]}


async def test_what_is_gone_at_the_second_look_is_no_finding(scene: Scene) -> None:
    superuser = scene.world.superuser
    await superuser.execute("UPDATE jobs SET losses = 3 WHERE job_id = ANY ($1)", [scene.names["queued"]])
    await superuser.execute("UPDATE gates SET used = used + 1")
    told: list[int] = []

    def meanwhile(count: int) -> None:
        # Called between the two looks: what happens here is what a living system does in that time.
        told.append(count)

    changing = verify(scene.world.logins.engine_dsn, patience_seconds=0.01, on_suspects=meanwhile)
    stayed = [(each.check.name, len(each.findings), each.passing) for each in await changing if not each.is_clean]

    assert told == [2]
    assert stayed == [("gates", 1, 0), ("attempts", 1, 0)]


async def test_a_check_that_gets_no_lock_says_so_and_the_others_go_on(scene: Scene) -> None:
    # Whoever makes or drops days holds such a lock.
    async with scene.world.superuser.transaction():
        await scene.world.superuser.execute("LOCK TABLE timers IN ACCESS EXCLUSIVE MODE")
        checked = await scene.find()

    unfinished = {each.check.name for each in checked if each.reason is not None}
    assert unfinished == {"stranded", "timers", "deliveries"}
    assert all(each.is_clean for each in checked if each.check.name not in unfinished)
