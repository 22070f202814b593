"""Load on the intake topic that goes on whatever happens to the brokers: single records at an even pace.

Postgres knows nothing of such a job until ingest has stored it: Kafka's acknowledgement is all that there is by then.
What wasn't acknowledged may be there or not, and nothing is claimed of it.
"""

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from barnabas.contract.topics import INTAKE
from barnabas.errors import BrokerUnavailableError, OverloadedError
from barnabas.kafka.admin import Admin
from barnabas.kafka.lag import lag
from barnabas.kafka.producer import Producer
from tests.chaos.scenarios.door import Tenant, echo
from tests.support.eventually import eventually

_GROUP = "barnabas.ingest"
# The client tries again by itself for so long: longer than a cluster takes to agree on another leader.
_DELIVERY_SECONDS = 60.0
_STORED_SECONDS = 120.0


@dataclass(slots=True)
class Intake:
    """A load in progress."""

    producer: Producer
    tenants: Sequence[Tenant]
    pace: float
    """Records a second."""
    acknowledged: list[str] = field(default_factory=list)
    """The idempotency keys of what Kafka has taken."""
    unknown: int = 0
    """Records without an acknowledgement."""
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        """No further records."""
        self._stop.set()

    async def keep_sending(self) -> None:
        """Until `close`; returns when nothing is under way any more."""
        run = uuid.uuid4().hex[:8]
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due = begin + number / self.pace
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await self._stop.wait()
                if self._stop.is_set():
                    return
                group.create_task(self._send(f"{run}-{number}", number))

    async def _send(self, key: str, number: int) -> None:
        tenant = self.tenants[number % len(self.tenants)]
        headers = [("authorization", tenant.key.encode()), ("idempotency-key", key.encode())]
        try:
            await self.producer.send(INTAKE.name, [(tenant.id.encode(), json.dumps(echo(number)).encode(), headers)])
        except (BrokerUnavailableError, OverloadedError):
            self.unknown += 1
        else:
            self.acknowledged.append(key)


@asynccontextmanager
async def open_intake(kafka: str, tenants: Sequence[Tenant], *, pace: float) -> AsyncIterator[Intake]:
    """Send until the end of the block; then every acknowledgement is in that will ever come."""
    async with (
        Producer(kafka, client_id="scenario", delivery_timeout_seconds=_DELIVERY_SECONDS) as producer,
        asyncio.TaskGroup() as group,
    ):
        intake = Intake(producer, tenants, pace)
        group.create_task(intake.keep_sending())
        try:
            yield intake
        finally:
            intake.close()


async def jobs_of(kafka: str, database: Any, tenants: Sequence[Tenant], keys: Sequence[str]) -> list[str]:
    """The job that each key stands for, once ingest has stored all that Kafka has; the key where there is none."""
    ids = [UUID(tenant.id) for tenant in tenants]

    async def stored() -> dict[str, str]:
        rows = await database.fetch("SELECT key, job_id FROM idempotency_keys WHERE tenant_id = ANY ($1)", ids)
        return {row["key"]: str(row["job_id"]) for row in rows}

    async with Admin(kafka) as admin:

        async def unread() -> int:
            if (await stored()).keys() >= set(keys):
                return 0
            return sum(each.records for each in await lag(admin, _GROUP, [INTAKE.name]))

        await eventually(unread, until=lambda count: count == 0, timeout=_STORED_SECONDS)
    jobs = await stored()
    return [jobs.get(key, key) for key in keys]
