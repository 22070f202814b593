"""The final state of a real system, read from its rows and topics, agrees with what its handlers and receivers saw."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from barnabas.client.api import AsyncClient
from barnabas.domain.backoff import RetryPolicy
from tests.chaos.checker import Rules, check, history, tally
from tests.chaos.final import Final
from tests.chaos.ledger import (
    LEDGER_VARIABLE,
    Accepted,
    Accepting,
    Cancelled,
    Event,
    Ledger,
    Received,
    Redriven,
    now,
    own_ledger,
    read_ledgers,
)
from tests.chaos.rows import count_told, read_final, result_hash, until_quiet
from tests.support.receiver import Receiver, open_receiver
from tests.support.stack import open_stack

# Longer than all its waits together, which say better what is wrong.
pytestmark = pytest.mark.timeout(1800)

_QUIET_SECONDS = 400.0
# What is judged here is what was read: whom a machine that stands still costs his lease is no matter.
_RULES = Rules(fault_window_seconds=1800.0)

QUICK = RetryPolicy(base_seconds=0.1, factor=1.5, cap_seconds=1.0)


@dataclass(slots=True)
class _Load:
    """A tenant's submissions, in the ledger."""

    client: AsyncClient
    tenant: str
    ledger: Ledger
    count: int = 0
    jobs: dict[str, list[UUID]] = field(default_factory=dict)

    async def submit(self, job_type: str, payload: dict[str, Any], expected: str, **options: Any) -> UUID:
        self.count += 1
        key = f"k{self.count}"
        delay = options.get("delay_seconds")
        asked = now()
        self.ledger.write(
            Accepting(
                asked,
                key,
                self.tenant,
                jobs_type=job_type,
                expected=expected,
                due_at=None if delay is None else asked + delay,
                ordering_key=options.get("ordering_key"),
            )
        )
        told = await self.client.submit(job_type, {"key": key, **payload}, idempotency_key=key, retry=QUICK, **options)
        self.ledger.write(Accepted(now(), key, self.tenant, str(told.id)))
        self.jobs.setdefault(job_type, []).append(told.id)
        return told.id


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as running:
        yield running


async def test_the_rows_and_topics_of_a_real_system_agree_with_the_ledger(tmp_path: Path, receiver: Receiver) -> None:
    env = {LEDGER_VARIABLE: str(tmp_path)}
    async with open_stack(workers=2, app="tests.support.ledger_handlers:app", env=env) as stack:
        tenant, api_key = await stack.tenant("ledger", concurrency=30)
        with own_ledger(tmp_path, "load") as ledger:
            async with stack.client(api_key) as client, stack.database() as database:
                # The second call succeeds, so that there is an attempt beside the last.
                endpoint = await client.create_endpoint(
                    receiver.script("/all", 500, 204), retry_schedule_seconds=[0.2, 0.2]
                )
                gone = await client.create_endpoint(receiver.script("/gone", 410), event_types=["job.failed"])
                load = _Load(client, tenant, ledger)
                await _submit(load)
                await until_quiet(database, timeout=_QUIET_SECONDS)
                ledger.write(Redriven(now(), tenant, *await _redrive(load)))
                await until_quiet(database, timeout=_QUIET_SECONDS)
                final = await read_final(database, stack.told["kafka"], counted=await count_told([client]))
            assert endpoint.secret is not None
            assert gone.secret is not None
            secrets = {"/all": (str(endpoint.id), endpoint.secret), "/gone": (str(gone.id), gone.secret)}
            ledger.write(*_received(receiver, tenant, secrets))
    events = read_ledgers(tmp_path)

    found = check(events, final, _RULES)

    assert found == [], "\n".join([*map(str, found), *(history(one.job, events, final) for one in found[:1])])
    _assert_all_was_read(load, final)
    told = tally(events, final)
    assert told.jobs == load.count + 1
    assert told.effects - told.extra_effects == Counter(row.state for row in final.ended)["succeeded"]


async def _submit(load: _Load) -> None:
    """Each way in which a handler can behave, at least once."""
    for _ in range(5):
        await load.submit("effect", {}, "succeeded")
    await load.submit("effect", {"fails": 2}, "succeeded")
    await load.submit("effect", {"fails": 1, "error": "permanent"}, "failed")
    await load.submit("effect", {"fails": 9}, "failed", max_attempts=2)
    await load.submit("effect", {}, "succeeded", delay_seconds=2)
    await load.submit("effect.sync", {"seconds": 0.2}, "succeeded")
    await load.submit("effect.process", {"seconds": 0.2, "fails": 1}, "succeeded")
    await load.submit("effect.snooze", {"times": 2}, "succeeded")
    await load.submit("effect.crash_alone", {}, "succeeded")
    await load.submit("effect.hang", {"seconds": 8}, "")
    await load.submit("effect.hang_alone", {"seconds": 60}, "")
    await load.submit("effect.unserializable", {}, "failed")
    await load.submit("effect.allocate", {}, "succeeded")
    for _ in range(3):
        await load.submit("effect", {"seconds": 0.1}, "succeeded", ordering_key="line")
    put_off = await load.submit("effect", {}, "cancelled", delay_seconds=3600)
    await load.client.cancel(put_off)
    load.ledger.write(Cancelled(now(), load.tenant, str(put_off)))
    # It takes its worker with it, and what ran there.
    await load.submit("effect.crash", {}, "succeeded")


async def _redrive(load: _Load) -> tuple[str, str]:
    """One dead letter and its new job."""
    (dead,) = load.jobs["effect.unserializable"]
    return str(dead), str((await load.client.retry(dead)).id)


def _received(receiver: Receiver, tenant: str, secrets: dict[str, tuple[str, str]]) -> list[Event]:
    """What came to the endpoints; the first call was answered 500, those to `/gone` 410."""
    events: list[Event] = []
    for number, request in enumerate(receiver.requests):
        endpoint, secret = secrets[request.path]
        body = request.verified(secret)
        first = all(earlier.path != request.path for earlier in receiver.requests[:number])
        answered = 410 if request.path == "/gone" else 500 if first else 204
        job, event_type = body["data"]["id"], body["type"]
        events.append(Received(request.at, tenant, endpoint, request.webhook_id, job, event_type, True, answered))
    return events


def _assert_all_was_read(load: _Load, final: Final) -> None:
    """None of it is empty: a checker without rows finds nothing."""
    kinds = Counter(row.kind for row in final.attempts)
    assert kinds["attempt"] >= 5
    # One of the two may have been in the hands of the worker that crashes.
    assert kinds["snooze"] >= 1
    assert kinds["loss"] >= 2
    assert len(final.keys) == load.count
    assert final.open == []
    assert final.left.keys() >= {"outbox", "timers", "ordering"}
    assert len(final.redrives) == 1
    assert len(final.endpoints) == 2
    assert any(row.allowed == 30 for row in final.gates)
    assert final.events is not None
    assert {record.event_id for record in final.events} == {row.event_id for row in final.ended}
    assert final.dead_jobs is not None
    assert len({record.job for record in final.dead_jobs}) >= 4
    assert final.dead_deliveries
    assert sum(read.count for read in final.partitions) >= len(final.events) + len(final.dead_jobs)
    assert Counter(letter.kind for letter in final.dead_letters)["job"] >= 3
    assert any(row.state == "failed" and row.last_status == 410 for row in final.deliveries)
    assert any(row.attempt == 2 and row.state == "succeeded" for row in final.deliveries)
    cancelled = [row for row in final.ended if row.state == "cancelled"]
    assert [(row.fence, row.held, row.started_at) for row in cancelled] == [(0, False, None)]


def test_a_result_is_named_by_its_run_and_any_other_by_its_bytes() -> None:
    assert result_hash(None) == ""
    assert result_hash(b'{"run":"r1"}') == "r1"
    assert result_hash(b"[1]") == result_hash(b"[1]") != result_hash(b"[2]")
