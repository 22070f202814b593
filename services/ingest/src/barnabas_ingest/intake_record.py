"""Records of the intake topic: whose each is and which job it asks for, or why it is bad."""

import traceback
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
import structlog

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
from barnabas.contract.problems import Problem, ProblemError, encode_problem, problem, refused
from barnabas.kafka.partitions import ConsumedRecord
from barnabas.runtime.clock import DatabaseClock
from barnabas_ingest.credentials import Credentials, bearer
from barnabas_ingest.submit import idempotency_key, trace_of

log = structlog.get_logger(__name__)

_OURS = frozenset({AUTHORIZATION_HEADER, IDEMPOTENCY_KEY_HEADER, TRACE_HEADER, PRIORITY_HEADER})
# Python refuses to read a number of thousands of digits.
_DIGITS_MAX = 20

BadRecord = tuple[ConsumedRecord, Problem]


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """A record that asks for a job. A msgspec struct, because a dataclass costs five times as much to make."""

    record: ConsumedRecord
    tenant_id: UUID
    job: ReadJob
    key: str | None
    """Its idempotency key."""
    fingerprint: bytes
    """Of its body; empty without a key."""
    trace: bytes | None


class _Sender(msgspec.Struct, frozen=True):
    """Whose a credential is, and the key that his records have; or why it is refused."""

    tenant_id: UUID
    key: bytes
    refusal: Problem | None = None


async def read_records(
    records: Sequence[ConsumedRecord], credentials: Credentials, clock: DatabaseClock
) -> tuple[list[Wanted], list[BadRecord]]:
    """What each asks for, or why it is bad; raises `DatabaseUnavailableError` when nobody can tell whose they are."""
    wanted: list[Wanted] = []
    bad: list[BadRecord] = []
    # A credential is looked at once for all its records here (0.1 instead of 1.9 us a record). They are a few
    # milliseconds' work, so a revoked one is refused as soon as it was.
    senders: dict[bytes, _Sender] = {}
    now = clock.now()
    for record in records:
        try:
            headers = _headers(record)
            credential = headers.get(AUTHORIZATION_HEADER)
            if credential is None:
                raise refused("unauthorized", "a record has an authorization header", pointer=AUTHORIZATION_HEADER)
            sender = senders.get(credential)
            if sender is None:
                sender = senders[credential] = await _sender(credential, credentials)
        except ProblemError as error:
            bad.append((record, error.problem))
            continue
        try:
            wanted.append(_wanted(record, headers, sender, now))
        except ProblemError as error:
            bad.append((record, error.problem))
        except Exception as error:  # noqa: BLE001 - a record that nobody thought of must not stop those behind it
            _log_unexpected(record, error)
            bad.append((record, problem("internal")))
    return wanted, bad


def _log_unexpected(record: ConsumedRecord, error: Exception) -> None:
    # Neither the error's text nor a traceback: they may quote the record.
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error(
        "intake_record_unreadable",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=f"{type(error).__name__} in {place.name}, line {place.lineno}",
    )


async def _sender(credential: bytes, credentials: Credentials) -> _Sender:
    try:
        tenant_id = await credentials.tenant_of_key(bearer(credential))
    except ProblemError as error:
        return _Sender(_NOBODY, b"", error.problem)
    return _Sender(tenant_id, str(tenant_id).encode())


_NOBODY = UUID(int=0)


def _wanted(record: ConsumedRecord, headers: dict[str, bytes], sender: _Sender, now: datetime) -> Wanted:
    if sender.refusal is not None:
        raise ProblemError(sender.refusal)
    if record.key != sender.key:
        if record.key is None:
            raise refused("malformed_record", "a record's key is its tenant's id", pointer="key")
        raise refused("wrong_tenant", pointer="key")
    if record.value is None:
        raise refused("malformed_record", "a record has a value", pointer="")
    job = read_job(record.value)
    if job.run_at is not None:
        job.due_at(now)
    if len(headers) == 1 and job.idempotency_key is None:
        return Wanted(record, sender.tenant_id, job, None, b"", None)
    key = idempotency_key(headers.get(IDEMPOTENCY_KEY_HEADER), job)
    priority = headers.get(PRIORITY_HEADER)
    return Wanted(
        record,
        sender.tenant_id,
        job if priority is None else msgspec.structs.replace(job, priority=_priority(priority)),
        key,
        b"" if key is None else fingerprint(record.value),
        trace_of(headers.get(TRACE_HEADER)),
    )


def rejected_headers(record: ConsumedRecord, why: Problem) -> list[tuple[str, bytes]]:
    """The headers of the copy for people: as they came but for the credential, and the problem."""
    kept = [(name, value) for name, value in record.headers if name.lower() != AUTHORIZATION_HEADER]
    return [*kept, (PROBLEM_HEADER, encode_problem(why))]  # type: ignore[list-item]  # a header may have no value


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


def _priority(header: bytes) -> int:
    """The header's priority, by name or number; a router may set it without touching the body."""
    text = header.decode("latin-1")
    is_number = len(text) <= _DIGITS_MAX and text.isascii() and text.isdigit()
    return read_priority(int(text) if is_number else text, pointer=PRIORITY_HEADER)
