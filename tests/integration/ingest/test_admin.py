"""The administrator's routes, and endpoints: secrets are shown once, and stored as they should be."""

import hashlib
from uuid import UUID

from barnabas.domain.keys import parse_key
from barnabas.domain.signing import decode_secret
from tests.integration.ingest.support import Caller, RunningIngest
from tests.support.world import World


async def test_only_the_admin_key_opens_the_admin_routes(ingest: RunningIngest, tenant: Caller) -> None:
    for caller in (ingest.nobody, tenant):
        for method, path in (("GET", "/v1/admin/tenants"), ("POST", "/v1/admin/tenants")):
            assert (await caller.call(method, path)).status == 401
    assert (await ingest.admin.get("/v1/jobs")).status == 401


async def test_a_key_is_shown_once_and_stored_as_a_hash(
    ingest: RunningIngest, tenant: Caller, module_world: World
) -> None:
    made = await ingest.admin.post(f"/v1/admin/tenants/{tenant.tenant_id}/keys", {"name": "ci"})

    assert made.status == 201
    parsed = parse_key(made.body["key"])
    assert parsed is not None
    row = await module_world.superuser.fetchrow("SELECT * FROM api_keys WHERE key_id = $1", UUID(made.body["id"]))
    assert row["secret_hash"] == hashlib.sha256(parsed.secret).digest()
    assert made.body["key"].startswith(made.body["prefix"])
    listed = await ingest.admin.get(f"/v1/admin/tenants/{tenant.tenant_id}/keys")
    assert [item["name"] for item in listed.body["items"]] == ["ci", "test"]
    assert all("key" not in item for item in listed.body["items"])
    assert made.headers["Cache-Control"] == "no-store"


async def test_tenants_are_listed_newest_first_and_names_are_unique(ingest: RunningIngest) -> None:
    first = await ingest.admin.post("/v1/admin/tenants", {"name": "first of two"})
    second = await ingest.admin.post("/v1/admin/tenants", {"name": "second of two"})
    taken = await ingest.admin.post("/v1/admin/tenants", {"name": "first of two"})

    page = await ingest.admin.get("/v1/admin/tenants?limit=1")
    rest = await ingest.admin.get(f"/v1/admin/tenants?limit=1&cursor={page.body['next_cursor']}")

    assert (first.status, second.status) == (201, 201)
    assert (taken.status, taken.code) == (409, "name_taken")
    assert [item["id"] for item in page.body["items"] + rest.body["items"]] == [second.body["id"], first.body["id"]]


async def test_an_unknown_tenant_is_404(ingest: RunningIngest) -> None:
    nobody = "/v1/admin/tenants/00000000-0000-0000-0000-000000000001"

    assert (await ingest.admin.post(f"{nobody}/keys", {"name": "x"})).status == 404
    assert (await ingest.admin.get(f"{nobody}/keys")).status == 404
    assert (await ingest.admin.call("DELETE", f"{nobody}/keys/{nobody[-36:]}")).status == 404
    assert (await ingest.admin.call("PUT", f"{nobody}/limits", {"concurrency": 1})).status == 404


async def test_an_endpoint_shows_its_secret_once(ingest: RunningIngest, tenant: Caller) -> None:
    other = await ingest.tenant()
    made = await tenant.post(
        "/v1/endpoints",
        {
            "url": "https://example.com/hook",
            "event_types": ["job.failed"],
            "retry_schedule_seconds": [1, 2.5],
            "headers": {"x-a": "b"},
        },
    )

    listed = await tenant.get("/v1/endpoints")
    strangers = await other.call("DELETE", f"/v1/endpoints/{made.body['id']}")
    gone = await tenant.call("DELETE", f"/v1/endpoints/{made.body['id']}")

    assert made.status == 201
    assert len(decode_secret(made.body.pop("secret"))) == 32
    assert listed.body["items"] == [made.body]
    assert (made.body["event_types"], made.body["retry_schedule_seconds"]) == (["job.failed"], [1.0, 2.5])
    assert (made.body["headers"], made.body["status"]) == ({"x-a": "b"}, "enabled")
    assert (strangers.status, gone.status) == (404, 204)
    assert (await tenant.get("/v1/endpoints")).body["items"] == []
    assert (await tenant.call("DELETE", f"/v1/endpoints/{made.body['id']}")).status == 404
