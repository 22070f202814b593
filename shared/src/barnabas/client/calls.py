"""Every request that the client can make, as values: what is sent, how the answer is read, whether it may be repeated.

Nothing here talks to a network. Both clients offer each of these functions as a method with the same arguments.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec
from pydantic import BaseModel

from barnabas.client.models import (
    ApiKey,
    DeadLetter,
    Delivery,
    Endpoint,
    Explanation,
    Job,
    Limits,
    NewJob,
    Page,
    Queue,
    Redriven,
    Submitted,
    Tenant,
    Timeline,
    TypeLimits,
    Verdict,
)
from barnabas.domain.backoff import RetryPolicy

T = TypeVar("T")

PriorityName = Literal["low", "medium", "high", "critical"]
EventType = Literal["job.succeeded", "job.failed", "job.cancelled"]

BATCH_JOBS_MAX = 10_000
# The server takes 16 MiB; the rest is room for brackets and commas.
BATCH_BYTES_MAX = 15 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[Answer], T]
    is_repeatable: bool
    """Doing it twice does no more than doing it once."""
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    hold_seconds: float = 0.0
    """How long the server may take its time, on top of the client's own limit."""

    def after(self, cursor: str) -> "Call[T]":
        """The same list, from that cursor on."""
        return replace(self, params={**self.params, "cursor": cursor})


def submit(
    job_type: str,
    payload: Any = None,
    *,
    idempotency_key: str | None = None,
    priority: int | PriorityName | None = None,
    queue: str | None = None,
    run_at: datetime | None = None,
    delay_seconds: float | None = None,
    max_attempts: int | None = None,
    timeout_seconds: float | None = None,
    retry: RetryPolicy | None = None,
    metadata: Mapping[str, Any] | None = None,
    ordering_key: str | None = None,
) -> Call[Submitted]:
    """Submit a job; when this returns it is stored for good.

    Jobs with the same ordering key run one after the other, in the order of their submission.

    With an idempotency key the same submission twice is one job, and the client repeats it by itself when the answer
    got lost. Without one it is never sent twice.
    """
    job = NewJob(
        type=job_type,
        payload=payload,
        priority=priority,
        queue=queue,
        run_at=run_at,
        delay_seconds=delay_seconds,
        max_attempts=max_attempts,
        timeout_seconds=timeout_seconds,
        retry=retry,
        metadata=metadata,
        ordering_key=ordering_key,
    )
    return Call(
        method="POST",
        path="/v1/jobs",
        body=encode(_document(job)),
        headers={} if idempotency_key is None else {"Idempotency-Key": idempotency_key},
        is_repeatable=idempotency_key is not None,
        read=_read_submitted,
    )


def submit_some(documents: Sequence[bytes], *, is_repeatable: bool) -> Call[list[Verdict]]:
    """Submit encoded jobs in one request; `submit_batch` in `flows.py` cuts a batch into these."""
    return Call(
        method="POST",
        path="/v1/jobs/batch",
        body=b"[" + b",".join(documents) + b"]",
        is_repeatable=is_repeatable,
        read=lambda answer: _verdicts.decode(answer.body).items,
    )


def get(job_id: UUID | str, *, wait: float | None = None) -> Call[Job]:
    """A job; with `wait` the answer comes when it has ended, or after so many seconds (the server allows 60)."""
    return Call(
        method="GET",
        path=f"/v1/jobs/{_segment(job_id)}",
        params=_params(wait=wait),
        is_repeatable=True,
        read=_reader(Job),
        hold_seconds=wait or 0.0,
    )


def list_jobs(
    *,
    status: str | None = None,
    job_type: str | None = None,
    queue: str | None = None,
    created_after: datetime | None = None,
    q: str | None = None,
    limit: int | None = None,
) -> Call[Page[Job]]:
    """All jobs that match, newest first; `limit` is the size of the pages behind it."""
    return _list(
        "/v1/jobs", Job, status=status, type=job_type, queue=queue, created_after=created_after, q=q, limit=limit
    )


def attempts(job_id: UUID | str) -> Call[Timeline]:
    """A job's timeline: its attempts, losses and hand-backs, and the deliveries of its end."""
    return _get(f"/v1/jobs/{_segment(job_id)}/attempts", Timeline)


def explain(job_id: UUID | str) -> Call[Explanation]:
    """Why a job isn't running: the first cause that holds it, and when that ends if it is known."""
    return _get(f"/v1/jobs/{_segment(job_id)}/explain", Explanation)


def cancel(job_id: UUID | str) -> Call[Job]:
    """Cancel a job; a running handler hears of it within a second."""
    return Call(method="POST", path=f"/v1/jobs/{_segment(job_id)}/cancel", is_repeatable=False, read=_reader(Job))


def retry(job_id: UUID | str) -> Call[Job]:
    """Redrive a failed job: the answer is a new job, the same one as long as that is open."""
    return Call(method="POST", path=f"/v1/jobs/{_segment(job_id)}/retry", is_repeatable=False, read=_reader(Job))


def create_endpoint(
    url: str,
    *,
    event_types: Sequence[EventType] | None = None,
    retry_schedule_seconds: Sequence[float] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Call[Endpoint]:
    """Send events of ended jobs to `url`. The answer has the endpoint's secret, this one time."""
    return _create(
        "/v1/endpoints",
        Endpoint,
        url=url,
        event_types=None if event_types is None else list(event_types),
        retry_schedule_seconds=None if retry_schedule_seconds is None else list(retry_schedule_seconds),
        headers=None if headers is None else dict(headers),
    )


def list_endpoints(*, limit: int | None = None) -> Call[Page[Endpoint]]:
    """All endpoints of the tenant."""
    return _list("/v1/endpoints", Endpoint, limit=limit)


def delete_endpoint(endpoint_id: UUID | str) -> Call[None]:
    """Send nothing more to that endpoint."""
    return _delete(f"/v1/endpoints/{_segment(endpoint_id)}")


def list_deliveries(
    *,
    status: str | None = None,
    endpoint_id: UUID | str | None = None,
    job_id: UUID | str | None = None,
    limit: int | None = None,
) -> Call[Page[Delivery]]:
    """All deliveries that match, newest first."""
    return _list("/v1/deliveries", Delivery, status=status, endpoint_id=endpoint_id, job_id=job_id, limit=limit)


def list_dlq(*, kind: Literal["jobs", "deliveries"] = "jobs", limit: int | None = None) -> Call[Page[DeadLetter]]:
    """All open dead letters, newest first."""
    return _list("/v1/dlq", DeadLetter, kind=kind, limit=limit)


def redrive(
    ids: Iterable[UUID | str], *, kind: Literal["jobs", "deliveries"] = "jobs", dry_run: bool = False, rate: float = 0.0
) -> Call[Redriven]:
    """Send dead letters round again, or only count them; with a rate so many a second over all calls, else at once."""
    limit = {"rate": rate} if rate else {}
    body = {"filter": {"kind": kind, "ids": [str(each) for each in ids]}, "dry_run": dry_run} | limit
    return Call(method="POST", path="/v1/dlq/redrive", body=encode(body), is_repeatable=False, read=_reader(Redriven))


def create_tenant(name: str) -> Call[Tenant]:
    """Make a tenant. Needs the admin key."""
    return _create("/v1/admin/tenants", Tenant, name=name)


def list_tenants(*, limit: int | None = None) -> Call[Page[Tenant]]:
    """All tenants, newest first. Needs the admin key."""
    return _list("/v1/admin/tenants", Tenant, limit=limit)


def create_key(tenant_id: UUID | str, name: str) -> Call[ApiKey]:
    """Make an API key for a tenant; the answer has the key, this one time. Needs the admin key."""
    return _create(f"/v1/admin/tenants/{_segment(tenant_id)}/keys", ApiKey, name=name)


def list_keys(tenant_id: UUID | str, *, limit: int | None = None) -> Call[Page[ApiKey]]:
    """All keys of a tenant, newest first, revoked ones too. Needs the admin key."""
    return _list(f"/v1/admin/tenants/{_segment(tenant_id)}/keys", ApiKey, limit=limit)


def delete_key(tenant_id: UUID | str, key_id: UUID | str) -> Call[None]:
    """Revoke an API key; within 5 seconds nobody accepts it. Needs the admin key."""
    return _delete(f"/v1/admin/tenants/{_segment(tenant_id)}/keys/{_segment(key_id)}")


def limits(tenant_id: UUID | str) -> Call[Limits]:
    """A tenant's limits, and how much of them is used. Needs the admin key."""
    return _get(f"/v1/admin/tenants/{_segment(tenant_id)}/limits", Limits)


def set_limits(
    tenant_id: UUID | str,
    *,
    concurrency: int | None = None,
    starts_per_minute: int | None = None,
    submits_per_minute: int | None = None,
    weight: int = 1,
    types: Mapping[str, TypeLimits] | None = None,
) -> Call[Limits]:
    """Replace all limits of a tenant: what is left out is no limit from then on. Needs the admin key.

    When this returns, no job starts above a limit of running jobs, on any worker.
    """
    body = {
        "concurrency": concurrency,
        "starts_per_minute": starts_per_minute,
        "submits_per_minute": submits_per_minute,
        "weight": weight,
        "types": dict(types or {}),
    }
    return Call(
        method="PUT",
        path=f"/v1/admin/tenants/{_segment(tenant_id)}/limits",
        body=encode(body),
        is_repeatable=True,
        read=_reader(Limits),
    )


def queues() -> Call[list[Queue]]:
    """All queues. Needs the admin key."""
    read = _reader(Page[Queue])
    return Call(method="GET", path="/v1/admin/queues", is_repeatable=True, read=lambda answer: read(answer).items)


def set_queue(name: str, *, shares: Mapping[str, int] | None = None) -> Call[Queue]:
    """Set a queue's shares by priority; one that is left out has its default. A queue that isn't there is made.

    Needs the admin key.
    """
    return Call(
        method="PUT",
        path=f"/v1/admin/queues/{_segment(name)}",
        body=encode({"shares": dict(shares or {})}),
        is_repeatable=True,
        read=_reader(Queue),
    )


def new_job(job: NewJob | Mapping[str, Any]) -> bytes:
    """A job of a batch, as JSON."""
    document = _document(job) if isinstance(job, NewJob) else dict(job)
    return encode(document)


def encode(value: object) -> bytes:
    """JSON; raises `ValueError` for NaN and infinity, which JSON lacks, and `TypeError` for what has no form in it."""
    plain = msgspec.to_builtins(value, enc_hook=_plain, str_keys=True)
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode()


def _document(job: NewJob) -> dict[str, Any]:
    if job.run_at is not None and job.run_at.tzinfo is None:
        raise ValueError("run_at needs a time zone: datetime(..., tzinfo=UTC)")
    given = {
        name: value
        for name in NewJob.__dataclass_fields__
        if name not in ("payload", "retry") and (value := getattr(job, name)) is not None
    }
    if job.retry is not None:
        given["retry"] = asdict(job.retry)
    return {**given, "payload": job.payload}


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _segment(value: UUID | str) -> str:
    text = str(value)
    if not text:
        raise ValueError("an id is missing")
    return quote(text, safe="")


def _params(**given: object) -> dict[str, str]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in given.items()
        if value is not None
    }


def _reader(model: type[T]) -> Callable[[Answer], T]:
    decoder = msgspec.json.Decoder(model)
    return lambda answer: decoder.decode(answer.body)


def _get(path: str, model: type[T]) -> Call[T]:
    return Call(method="GET", path=path, is_repeatable=True, read=_reader(model))


def _list(path: str, model: type[T], **params: object) -> Call[Page[T]]:
    decoder = msgspec.json.Decoder(Page[model])  # type: ignore[valid-type] # a type only known when it is called
    return Call(
        method="GET",
        path=path,
        params=_params(**params),
        is_repeatable=True,
        read=lambda answer: decoder.decode(answer.body),
    )


def _create(path: str, model: type[T], **body: object) -> Call[T]:
    given = {name: value for name, value in body.items() if value is not None}
    return Call(method="POST", path=path, body=encode(given), is_repeatable=False, read=_reader(model))


def _delete(path: str) -> Call[None]:
    # Not repeated: the second answer would be that there is no such thing.
    return Call(method="DELETE", path=path, is_repeatable=False, read=lambda _: None)


def _read_submitted(answer: Answer) -> Submitted:
    return Submitted(_job_decoder.decode(answer.body), is_replayed=answer.headers.get("idempotent-replayed") == "true")


class _BatchAnswer(msgspec.Struct, frozen=True):
    items: list[Verdict]


_verdicts = msgspec.json.Decoder(_BatchAnswer)
_job_decoder = msgspec.json.Decoder(Job)
