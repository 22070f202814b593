"""Flushes as Postgres stores them: what is the same for all their jobs is sent once, and nobody can tell."""

from itertools import product
from uuid import UUID

import pytest

from barnabas.postgres.submissions import Submission, accept_jobs, accept_keyed_jobs
from tests.support.world import World, new_id

Row = tuple[UUID, UUID, int, int, bytes]


async def stored(world: World, tenants: list[UUID]) -> list[Row]:
    rows = await world.superuser.fetch(
        "SELECT job.tenant_id, job.job_id, job.type_id, job.priority, sent.payload FROM jobs AS job"
        " JOIN job_payloads AS sent USING (tenant_id, job_id, type_id, priority)"
        " WHERE job.tenant_id = ANY ($1) ORDER BY job.job_id",
        tenants,
    )
    return [tuple(row) for row in rows]


async def told(world: World, tenants: list[UUID]) -> list[UUID]:
    rows = await world.superuser.fetch("SELECT ref_ids FROM outbox WHERE kind = 1 AND tenant_ids && $1", tenants)
    return [job for row in rows for job in row["ref_ids"]]


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
@pytest.mark.parametrize(
    ("tenant_count", "type_count", "priorities"), list(product((1, 2), (1, 2), ([0], [1], [0, 3])))
)
async def test_columns_that_are_shared_and_columns_that_differ_are_stored_alike(
    world: World, tenant_count: int, type_count: int, priorities: list[int], keyed: bool
) -> None:
    tenants = [await world.tenant() for _ in range(tenant_count)]
    types = [await world.type_id(name) for name in ("echo", "sum")[:type_count]]
    jobs = [
        Submission(
            tenants[n % tenant_count],
            new_id(),
            types[n // 2 % type_count],
            priorities[n // 3 % len(priorities)],
            0,
            None,
            None,
            None,
            b"%d" % n,
            None,
            None,
            None,
        )
        for n in range(12)
    ]

    async with world.engine.session() as session:
        if keyed:
            accepted = await accept_keyed_jobs(session, jobs, [(str(job.job_id), job.payload) for job in jobs])
        else:
            accepted = await accept_jobs(session, jobs, told=())

    expected = [(job.tenant_id, job.job_id, job.type_id, job.priority, job.payload) for job in jobs]
    assert await stored(world, tenants) == sorted(expected, key=lambda row: row[1])
    assert sorted(await told(world, tenants)) == sorted(job.job_id for job in jobs)
    assert not accepted.marks
    if keyed:
        assert [(holder.job_id, holder.fingerprint, holder.made) for holder in accepted.holders if holder] == [
            (job.job_id, job.payload, True) for job in jobs
        ]


async def test_a_flush_some_of_whose_keys_are_taken_names_each_ones_holder(world: World) -> None:
    tenant, number = await world.tenant(), await world.type_id("echo")

    def job() -> Submission:
        return Submission(tenant, new_id(), number, 1, 0, None, None, None, b"{}", None, None, None)

    first, again, unkeyed, other = job(), job(), job(), job()
    async with world.engine.session() as session:
        await accept_keyed_jobs(session, [first], [("k", b"1")])
        accepted = await accept_keyed_jobs(session, [again, unkeyed, other], [("k", b"2"), None, ("l", b"3")])

    assert [(holder.job_id, holder.fingerprint, holder.made) for holder in accepted.holders if holder] == [
        (first.job_id, b"1", False),
        (unkeyed.job_id, b"", True),
        (other.job_id, b"3", True),
    ]
