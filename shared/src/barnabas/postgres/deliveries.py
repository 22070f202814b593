"""Deliveries: every move between their states, each one statement for the whole batch, and the reads around them.

What a notifier writes names its worker id and the fence it holds. Lists are put into key order here, because that is
the order in which rows are locked everywhere.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

import asyncpg

from barnabas.contract.deliveries import DeadDelivery
from barnabas.contract.telling import (
    Envelope,
    Told,
    dead_delivery_record,
    delivery_record,
    delivery_retry_record,
)
from barnabas.domain.deliveries import DeliveryState
from barnabas.errors import RejectedError
from barnabas.postgres.database import Session, by_key


class RefusedRowError(RejectedError):
    """Postgres refuses a row of this batch, and so the whole of it: halve the batch."""

    code = "row_refused"


class DeliveryKey(NamedTuple):
    """One event to one endpoint."""

    tenant_id: UUID
    event_id: UUID
    endpoint_id: UUID


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery of an event just met: held where its lane had room, parked, or cancelled for a reason."""

    key: DeliveryKey
    delivery_id: UUID
    job_id: UUID
    state: DeliveryState
    error: str | None = None


class ClaimAction(IntEnum):
    """What to do with a delivery that may be tried now."""

    CLAIM = 1
    PARK = 2
    CANCEL = 3


class DeliveryVerdict(IntEnum):
    """What became of it. All are durable; a delivery without one is stale: held, ended, or never there."""

    CLAIMED = 1
    PARKED = 2
    EARLY = 3
    CANCELLED = 4


@dataclass(frozen=True, slots=True)
class WantedDelivery:
    """A delivery that a record says may be tried now."""

    key: DeliveryKey
    action: ClaimAction
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery that this notifier holds now."""

    key: DeliveryKey
    job_id: UUID
    fence: int
    attempt: int


@dataclass(frozen=True, slots=True)
class DeliveryClaims:
    """The answer to a claim: what is held now, what comes back at which time, and what was cancelled."""

    claimed: list[ClaimedDelivery]
    early: list[tuple[DeliveryKey, datetime]]
    parked: int
    cancelled: int
    stale: int


@dataclass(frozen=True, slots=True)
class LaneRoom:
    """How many parked deliveries of an endpoint may be taken; with an `error` they are cancelled for it instead."""

    tenant_id: UUID
    endpoint_id: UUID
    room: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call to an endpoint as it is kept: `status` None when there was no answer."""

    started_at: datetime
    duration_ms: int
    status: int | None
    error: str | None
    response_body: bytes | None


@dataclass(frozen=True, slots=True)
class FinishingDelivery:
    """A held delivery whose try is over. Without a call the attempt isn't charged."""

    key: DeliveryKey
    fence: int
    state: DeliveryState
    call: Call | None
    due_at: datetime | None = None
    error: str | None = None
    reason: str | None = None
    disable_endpoint: bool = False


@dataclass(frozen=True, slots=True)
class DeliveryFinishes:
    """Which of them this call moved, or its own first try had, and the outbox row that tells of them."""

    moved: frozenset[tuple[UUID, UUID]]
    """(event_id, endpoint_id)."""
    outbox_id: int | None


async def open_deliveries(
    session: Session, worker_id: UUID, batch_id: UUID, deliveries: Sequence[NewDelivery]
) -> dict[DeliveryKey, DeliveryState]:
    """Write the deliveries of new events; returns those that are new, with their states.

    Raises `LeaseOverError` when the notifier has no lease any more, `RefusedRowError` for a row that can't be stored.
    """
    ordered = [deliveries[i] for i in by_key([new.key for new in deliveries])]
    try:
        rows = await session.fetch(
            "open_deliveries",
            worker_id,
            batch_id,
            *_columns(new.key for new in ordered),
            [new.delivery_id for new in ordered],
            [new.job_id for new in ordered],
            [new.state for new in ordered],
            [new.error for new in ordered],
        )
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        # An event whose day has no partition, for one: SQLSTATE classes 22 and 23.
        raise RefusedRowError(f"{type(error).__name__} ({error.sqlstate})") from error
    return {DeliveryKey(row[0], row[1], row[2]): DeliveryState(row[3]) for row in rows}


async def claim_deliveries(
    session: Session, worker_id: UUID, batch_id: UUID, wanted: Sequence[WantedDelivery]
) -> DeliveryClaims:
    """Claim, park or cancel; raises `LeaseOverError` when the notifier has no lease any more."""
    # A record may come twice in one batch; one row moves once.
    ordered = list({one.key: one for one in sorted(wanted, key=lambda one: one.key)}.values())
    rows = await session.fetch(
        "claim_deliveries",
        worker_id,
        batch_id,
        *_columns(one.key for one in ordered),
        [one.action for one in ordered],
        [one.error for one in ordered],
    )
    claimed, early = [], []
    counts = dict.fromkeys(DeliveryVerdict, 0)
    for verdict, tenant_id, event_id, endpoint_id, job_id, fence, attempt, due_at in rows:
        counts[DeliveryVerdict(verdict)] += 1
        key = DeliveryKey(tenant_id, event_id, endpoint_id)
        if verdict == DeliveryVerdict.CLAIMED:
            claimed.append(ClaimedDelivery(key, job_id, fence, attempt))
        elif verdict == DeliveryVerdict.EARLY:
            early.append((key, due_at))
    return DeliveryClaims(
        claimed,
        early,
        parked=counts[DeliveryVerdict.PARKED],
        cancelled=counts[DeliveryVerdict.CANCELLED],
        stale=len(wanted) - len(rows),
    )


async def take_parked_deliveries(
    session: Session, worker_id: UUID, batch_id: UUID, rooms: Sequence[LaneRoom]
) -> tuple[list[ClaimedDelivery], dict[tuple[UUID, UUID], int]]:
    """The oldest parked deliveries of these endpoints, and how many moved of each: taken, or cancelled for an error.

    Raises `LeaseOverError` when the notifier has no lease any more.
    """
    rows = await session.fetch(
        "take_parked_deliveries",
        worker_id,
        batch_id,
        [lane.tenant_id for lane in rooms],
        [lane.endpoint_id for lane in rooms],
        [lane.room for lane in rooms],
        [lane.error for lane in rooms],
    )
    taken = [
        ClaimedDelivery(DeliveryKey(tenant_id, event_id, endpoint_id), job_id, fence, attempt)
        for tenant_id, event_id, endpoint_id, job_id, fence, attempt, state in rows
        if state == DeliveryState.RUNNING
    ]
    # The statement gives them in no order; a lane sends its oldest first.
    taken.sort(key=lambda one: one.key.event_id)
    return taken, dict(Counter((row[0], row[2]) for row in rows))


async def find_parked_endpoints(
    session: Session, worker_id: UUID, *, after: tuple[UUID, UUID], limit: int
) -> list[tuple[tuple[UUID, UUID], bool]]:
    """The next endpoints with parked deliveries, in key order, and whether `worker_id` should look after them.

    It should when it parked the oldest itself, or when the notifier that did is dead.
    """
    rows = await session.fetch("find_parked_endpoints", *after, limit, worker_id)
    return [((row["tenant_id"], row["endpoint_id"]), row["is_ours"]) for row in rows]


async def finish_deliveries(
    session: Session, worker_id: UUID, deliveries: Sequence[FinishingDelivery], *, batches: Sequence[UUID] = ()
) -> DeliveryFinishes:
    """Write what became of held deliveries; `batches` are lease batches that are done with then."""
    ordered = [deliveries[i] for i in by_key([done.key for done in deliveries])]
    rows = await session.fetch(
        "finish_deliveries",
        worker_id,
        *_columns(done.key for done in ordered),
        [done.fence for done in ordered],
        [done.state for done in ordered],
        [done.due_at for done in ordered],
        [done.call and done.call.status for done in ordered],
        [done.error for done in ordered],
        [done.call and done.call.started_at for done in ordered],
        [done.call and done.call.duration_ms for done in ordered],
        [done.call and done.call.response_body for done in ordered],
        [done.reason for done in ordered],
        [done.disable_endpoint for done in ordered],
        list(batches),
    )
    return DeliveryFinishes(
        frozenset((row[0], row[1]) for row in rows), next((row[2] for row in rows if row[2] is not None), None)
    )


async def release_deliveries(
    session: Session,
    worker_id: UUID,
    held: Sequence[tuple[DeliveryKey, int | None]],
    *,
    batches: Sequence[UUID] = (),
) -> tuple[list[UUID], int | None]:
    """Let go of deliveries that `worker_id` holds, at once and uncharged; the event ids let go and the outbox row.

    A fence of None is any that this worker holds: the reaper doesn't know more.
    """
    ordered = [held[i] for i in by_key([one[0] for one in held])]
    row = await session.fetchrow(
        "release_deliveries",
        worker_id,
        *_columns(key for key, _ in ordered),
        [fence for _, fence in ordered],
        list(batches),
    )
    assert row is not None
    return list(row["released"] or ()), row["outbox"]


async def tell_deliveries(
    session: Session, keys: Sequence[DeliveryKey], fences: Sequence[int]
) -> tuple[list[Envelope], list[Told]]:
    """What an outbox row of deliveries has to say as its rows are now; what moved on since is left out."""
    envelopes: list[Envelope] = []
    told: list[Told] = []
    for row in await session.fetch("read_untold_deliveries", *_columns(keys), list(fences)):
        key = (row["tenant_id"], row["event_id"], row["endpoint_id"])
        match DeliveryState(row["state"]):
            case DeliveryState.PENDING:
                envelopes.append(delivery_record(*key, row["fence"]))
            case DeliveryState.RETRYING:
                envelopes.append(delivery_retry_record(*key, row["fence"], due_at=row["due_at"]))
            case _:
                told.append(
                    dead_delivery_record(
                        DeadDelivery(
                            id=row["delivery_id"],
                            tenant_id=row["tenant_id"],
                            event_id=row["event_id"],
                            endpoint_id=row["endpoint_id"],
                            job_id=row["job_id"],
                            attempt=row["attempt"],
                            reason=row["reason"],
                            error=row["error"],
                            last_status=row["last_status"],
                            finished_at=row["finished_at"],
                        )
                    )
                )
    return envelopes, told


def _columns(keys: Iterable[DeliveryKey]) -> tuple[list[UUID], list[UUID], list[UUID]]:
    listed = list(keys)
    return [key.tenant_id for key in listed], [key.event_id for key in listed], [key.endpoint_id for key in listed]
