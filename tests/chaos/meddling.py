"""What tenants do beside submitting: they cancel jobs and redrive dead letters, while everything else goes on."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.chaos.accepts import Load
from tests.chaos.endpoints import ChaosEndpoints
from tests.chaos.ledger import Cancelled, Redriven, now
from tests.chaos.wishes import ChaosTenant

# Of those that failed; a redriven job fails again, so this must stay below one.
_REDRIVEN = 3
_TRIES_MAX = 20
_PAUSE_SECONDS = 0.5
# A cancel that is known to be no use any more, or a dead letter that is none: nothing that a fault could explain.
_TOO_LATE = frozenset({404, 409})


@dataclass(slots=True)
class Meddling:
    """Cancels what is marked, and redrives one of three failed jobs."""

    load: Load
    endpoints: ChaosEndpoints
    tenants: Sequence[ChaosTenant]
    cancelled: int = 0
    redriven: int = 0
    _heard: int = field(default=0, init=False)

    async def meddle(self) -> None:
        """Until cancelled."""
        keys = {tenant.id: tenant.key for tenant in self.tenants}
        while True:
            while self.load.to_cancel:
                wish, job = self.load.to_cancel.popleft()
                if await self._ask(f"/v1/jobs/{job}/cancel", wish.tenant.key) is not None:
                    self.load.ledger.write(Cancelled(now(), wish.tenant.id, job))
                    self.cancelled += 1
            while self.endpoints.failed:
                tenant, job = self.endpoints.failed.popleft()
                self._heard += 1
                if self._heard % _REDRIVEN == 0:
                    new = await self._ask(f"/v1/jobs/{job}/retry", keys[tenant])
                    if new is not None:
                        self.load.ledger.write(Redriven(now(), tenant, job, new))
                        self.redriven += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(self, path: str, key: str) -> str | None:
        """The id of the job in the answer; None without a yes, which promises nothing."""
        for _ in range(_TRIES_MAX):
            try:
                async with self.load.http.post(
                    self.load.url + path, headers={"authorization": f"Bearer {key}"}
                ) as response:
                    answer = await response.json(content_type=None)
                    status = response.status
            except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
                status = 0
            self.load.statuses[status] += 1
            if 200 <= status < 300:
                return str(answer["id"])
            if status in _TOO_LATE:
                return None
            if status not in (0, 408, 429, 503):
                self.load.wrong.append(f"{path}: {status} {answer}")
                return None
            await asyncio.sleep(_PAUSE_SECONDS)
        return None
