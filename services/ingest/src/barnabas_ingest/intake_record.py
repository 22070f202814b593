"""One record of the intake topic: whose it is and which job it asks for, or why it is bad."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from barnabas.contract.intake import (
    AUTHORIZATION_HEADER,
    IDEMPOTENCY_KEY_HEADER,
    PRIORITY_HEADER,
    PROBLEM_HEADER,
    TRACE_HEADER,
    ReadJob,
    fingerprint,
    read_job,
    read_priority,
)
from barnabas.contract.problems import Problem, encode_problem, refused
from barnabas.kafka.partitions import ConsumedRecord
from barnabas_ingest.credentials import Credentials, bearer
from barnabas_ingest.submit import idempotency_key, trace_of

_OURS = frozenset({AUTHORIZATION_HEADER, IDEMPOTENCY_KEY_HEADER, TRACE_HEADER, PRIORITY_HEADER})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A record that asks for a job."""

    record: ConsumedRecord
    tenant_id: UUID
    job: ReadJob
    priority: int
    key: str | None
    """Its idempotency key."""
    fingerprint: bytes
    """Of its body; empty without a key."""
    trace: bytes | None


async def read_record(record: ConsumedRecord, credentials: Credentials, *, now: datetime) -> Wanted:
    """What a record asks for; raises `ProblemError` for a bad one, `DatabaseUnavailableError` when nobody can tell."""
    headers = _headers(record)
    credential = headers.get(AUTHORIZATION_HEADER)
    if credential is None:
        raise refused("unauthorized", "a record has an authorization header", pointer=AUTHORIZATION_HEADER)
    tenant_id = await credentials.tenant_of_key(bearer(credential))
    if record.key is None:
        raise refused("malformed_record", "a record's key is its tenant's id", pointer="key")
    if record.key != str(tenant_id).encode():
        raise refused("wrong_tenant", pointer="key")
    if record.value is None:
        raise refused("malformed_record", "a record has a value", pointer="")
    job = read_job(record.value)
    job.due_at(now)
    key = idempotency_key(headers.get(IDEMPOTENCY_KEY_HEADER), job)
    return Wanted(
        record=record,
        tenant_id=tenant_id,
        job=job,
        priority=_priority(headers.get(PRIORITY_HEADER), job),
        key=key,
        fingerprint=b"" if key is None else fingerprint(record.value),
        trace=trace_of(headers.get(TRACE_HEADER)),
    )


def rejected_headers(record: ConsumedRecord, problem: Problem) -> list[tuple[str, bytes]]:
    """The headers of the copy for people: as they came but for the credential, and the problem."""
    kept = [(name, value) for name, value in record.headers if name.lower() != AUTHORIZATION_HEADER]
    return [*kept, (PROBLEM_HEADER, encode_problem(problem))]  # type: ignore[list-item]  # a header may have no value


def _headers(record: ConsumedRecord) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, value in record.headers:
        lower = name.lower()
        if lower not in _OURS or value is None:
            continue
        if lower in found:
            raise refused("malformed_record", f"the header {lower} stands there twice", pointer=lower)
        found[lower] = value
    return found


def _priority(header: bytes | None, job: ReadJob) -> int:
    """The header's priority, by name or number; a router may set it without touching the body."""
    if header is None:
        return job.priority
    text = header.decode("latin-1")
    return read_priority(int(text) if text.isascii() and text.isdigit() else text, pointer=PRIORITY_HEADER)
