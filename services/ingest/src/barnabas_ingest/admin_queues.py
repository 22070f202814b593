"""The administrator's routes of queues: which there are, and their shares. Only the admin key opens them."""

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from barnabas.contract.problems import refused
from barnabas.contract.queues import QueueInput, QueueList, QueueView, shares_of
from barnabas.contract.topics import is_queue_name
from barnabas.postgres.queues import Queue, list_queues, set_shares
from barnabas_ingest.routes import Res, check_admin, read_input, respond

router = APIRouter(prefix="/v1/admin/queues", tags=["admin"], dependencies=[Depends(check_admin)])


@router.get("", operation_id="list_queues")
async def get_queues(resources: Res) -> Response:
    """All queues."""
    return respond(200, QueueList([_view(queue) for queue in await list_queues(resources.database)]))


@router.get("/{name}", operation_id="get_queue")
async def get_queue(resources: Res, name: str) -> Response:
    """One queue."""
    for queue in await list_queues(resources.database):
        if queue.name == name:
            return respond(200, _view(queue))
    raise refused("not_found")


@router.put("/{name}", operation_id="set_queue")
async def put_queue(request: Request, resources: Res, name: str) -> Response:
    """Set a queue's shares; a queue that isn't there is made. Workers follow within seconds."""
    given = await read_input(request, QueueInput)
    if not is_queue_name(name):
        raise refused(
            "validation_failed", "a queue's name is 1 to 32 of a-z, 0-9 and -, not at its ends", pointer="name"
        )
    await resources.queue_maker.ensure(name)
    queue = await set_shares(resources.database, name, given.shares.by_priority())
    assert queue is not None, "queues are never deleted"
    return respond(200, _view(queue))


def _view(queue: Queue) -> QueueView:
    return QueueView(queue.name, shares_of(queue.shares))
