"""The demo tenant: made once through the public admin interface, found again on later runs."""

from collections.abc import Mapping
from typing import Any

import httpx

from barnabas_local.errors import LocalStackError

NAME = "demo"
_SECONDS = 15.0


async def ensure_demo_tenant(
    *, api_url: str, admin_key: str, known_tenant: str, known_key: str, suffix: str
) -> tuple[str, str]:
    """The tenant's id and one of its keys: the known ones if the key is still accepted, else new ones.

    `suffix` makes another name where `demo` is taken by a tenant whose key nobody has any more.
    """
    async with httpx.AsyncClient(base_url=api_url, timeout=_SECONDS, trust_env=False) as client:
        if known_key:
            answer = await client.get("/v1/jobs", params={"limit": 1}, headers=_bearer(known_key))
            if answer.status_code == httpx.codes.OK:
                return known_tenant, known_key
        made = await client.post("/v1/admin/tenants", json={"name": NAME}, headers=_bearer(admin_key))
        if made.status_code == httpx.codes.CONFLICT:
            made = await client.post("/v1/admin/tenants", json={"name": f"{NAME}-{suffix}"}, headers=_bearer(admin_key))
        tenant = str(_created(made, "tenant")["id"])
        key = await client.post(f"/v1/admin/tenants/{tenant}/keys", json={"name": NAME}, headers=_bearer(admin_key))
        return tenant, str(_created(key, "key")["key"])


def _created(answer: httpx.Response, what: str) -> Mapping[str, Any]:
    if answer.status_code != httpx.codes.CREATED:
        raise LocalStackError(f"ingest did not make the demo {what}: {answer.status_code} {answer.text[:500]}")
    made: Mapping[str, Any] = answer.json()
    return made


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
