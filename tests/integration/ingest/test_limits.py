"""A tenant's limits by HTTP: set as a whole, shown with their use, refused by the place of what is wrong."""

from typing import Any
from uuid import UUID

import pytest

from barnabas.domain.limits import CONCURRENCY_MAX, RATE_MAX, TYPES_MAX, WEIGHT_MAX
from tests.integration.ingest.support import Caller, RunningIngest
from tests.support.turns import claim_jobs
from tests.support.world import World, new_id

NONE: dict[str, Any] = {
    "concurrency": None,
    "starts_per_minute": None,
    "submits_per_minute": None,
    "weight": 1,
    "types": {},
    "use": {"running": None, "starts": None, "submits": None, "types": {}},
}


def path_of(tenant: Caller) -> str:
    return f"/v1/admin/tenants/{tenant.tenant_id}/limits"


async def test_limits_are_set_read_and_taken_away(ingest: RunningIngest, tenant: Caller) -> None:
    limits = {
        "concurrency": 5,
        "starts_per_minute": 600,
        "submits_per_minute": 10,
        "weight": 3,
        # Nobody has submitted one yet; slashes and the like are part of a name.
        "types": {"scoring/v2:x": {"concurrency": 2, "starts_per_minute": None}},
    }
    none = await ingest.admin.get(path_of(tenant))
    put = await ingest.admin.call("PUT", path_of(tenant), limits)
    shown = await ingest.admin.get(path_of(tenant))
    fewer = await ingest.admin.call("PUT", path_of(tenant), {"concurrency": 4})
    away = await ingest.admin.call("PUT", path_of(tenant), {})

    use = {"running": 0, "starts": 0, "submits": 0, "types": {"scoring/v2:x": {"running": 0, "starts": None}}}
    assert (none.status, none.body) == (200, NONE)
    assert (put.status, put.body) == (200, limits | {"use": use})
    assert shown.body == put.body
    assert fewer.body == NONE | {"concurrency": 4, "use": NONE["use"] | {"running": 0}}
    assert away.body == (await ingest.admin.get(path_of(tenant))).body == NONE


async def test_what_runs_is_shown(ingest: RunningIngest, tenant: Caller, module_world: World) -> None:
    assert tenant.tenant_id is not None
    jobs = [UUID(await tenant.submit(type="scoring")) for _ in range(3)]
    worker = await module_world.worker("scoring")
    async with module_world.engine.session() as session:
        numbers = {await module_world.type_id("scoring"): 60_000}
        await claim_jobs(session, worker, new_id(), [(tenant.tenant_id, job) for job in jobs[:2]], numbers)
    put = await ingest.admin.call(
        "PUT", path_of(tenant), {"concurrency": 5, "types": {"scoring": {"concurrency": 3, "starts_per_minute": 60}}}
    )
    async with module_world.engine.session() as session:
        await claim_jobs(session, worker, new_id(), [(tenant.tenant_id, jobs[2])], numbers)

    assert put.body["use"]["running"] == 2
    assert put.body["use"]["types"] == {"scoring": {"running": 2, "starts": 0}}
    assert (await ingest.admin.get(path_of(tenant))).body["use"] == {
        "running": 3,
        "starts": None,
        "submits": None,
        "types": {"scoring": {"running": 3, "starts": 1}},
    }


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"concurrency": 0}, "/concurrency"),
        ({"concurrency": CONCURRENCY_MAX + 1}, "/concurrency"),
        ({"concurrency": "5"}, "/concurrency"),
        ({"concurrency": 1.5}, "/concurrency"),
        ({"concurrency": True}, "/concurrency"),
        ({"starts_per_minute": -1}, "/starts_per_minute"),
        ({"submits_per_minute": RATE_MAX + 1}, "/submits_per_minute"),
        ({"weight": 0}, "/weight"),
        ({"weight": None}, "/weight"),
        ({"weight": WEIGHT_MAX + 1}, "/weight"),
        ({"types": {"a/b": {"concurrency": 0}}}, "/types/a~1b/concurrency"),
        ({"types": {"": {}}}, "/types"),
        ({"types": {"no spaces": {}}}, "/types"),
        ({"types": {f"t{n}": {"concurrency": 1} for n in range(TYPES_MAX + 1)}}, "/types"),
        ({"types": {"a": {"speed": 1}}}, "/types/*/speed"),
        ({"speed": 1}, "/speed"),
    ],
)
async def test_a_limit_that_is_none_is_refused_where_it_stands(
    ingest: RunningIngest, tenant: Caller, body: dict[str, Any], pointer: str
) -> None:
    refused = await ingest.admin.call("PUT", path_of(tenant), {"submits_per_minute": 7} | body)

    assert (refused.status, refused.code, refused.pointers) == (422, "validation_failed", [pointer])
    assert (await ingest.admin.get(path_of(tenant))).body == NONE


async def test_the_largest_limits_are_taken(ingest: RunningIngest, tenant: Caller) -> None:
    rates = {"concurrency": CONCURRENCY_MAX, "starts_per_minute": RATE_MAX}
    limits = rates | {"submits_per_minute": RATE_MAX, "weight": WEIGHT_MAX, "types": {"x" * 128: rates}}

    assert (await ingest.admin.call("PUT", path_of(tenant), limits)).status == 200
    assert (await ingest.admin.get(path_of(tenant))).body["types"] == {"x" * 128: rates}


async def test_only_the_administrator_sets_limits_of_tenants_that_there_are(
    ingest: RunningIngest, tenant: Caller
) -> None:
    nobody = "/v1/admin/tenants/00000000-0000-0000-0000-000000000001/limits"

    assert (await tenant.get(path_of(tenant))).status == 401
    assert (await tenant.call("PUT", path_of(tenant), {})).status == 401
    assert (await ingest.admin.get(nobody)).status == 404
    assert (await ingest.admin.call("PUT", nobody, {"concurrency": 1})).status == 404
