"""`GET /v1/jobs/{id}/explain`: why a job isn't running, the first cause named."""

from fastapi import APIRouter
from starlette.responses import Response

from barnabas.contract.explain import explain_view
from barnabas.contract.problems import refused
from barnabas.domain.explain import explain
from barnabas.postgres.explain import read_facts
from barnabas_ingest.routes import Res, TenantId, read_id, respond

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{job_id}/explain", operation_id="explain_job")
async def get_explanation(resources: Res, tenant_id: TenantId, job_id: str) -> Response:
    """Why a job isn't running: the first cause that holds it, the figures behind it, and when it ends if that is known.

    The causes in their order: it has `finished` or is `running`; it is `scheduled` or waits for its `backoff`; another
    job of its `ordering_key` has the turn; the limits `tenant_concurrency`, `tenant_starts`, `type_concurrency` and
    `type_starts`; `no_worker` takes its type from its queue; it is in the `backlog`; it is `queued` behind others.
    """
    key = read_id(job_id)
    facts = await read_facts(resources.api, resources.database, tenant_id, key)
    if facts is None:
        raise refused("not_found")
    return respond(200, explain_view(key, facts.state.label, explain(facts)))
