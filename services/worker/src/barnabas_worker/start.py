"""Starting a claimed job: its handler, its limits, its context, and where it runs."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from barnabas.contract.topics import PRIORITY_NAMES
from barnabas.domain.jobs import Hook
from barnabas.postgres.turns import ClaimedJob
from barnabas.runtime import metrics
from barnabas.sdk.app import Handler
from barnabas.sdk.context import Context
from barnabas.sdk.isolated import IsolatedAttempt
from barnabas.sdk.processes import ChildProcesses
from barnabas.sdk.running import Attempt
from barnabas_worker.holdings import Held, Running
from barnabas_worker.resources import Resources


def hold_all(resources: Resources, jobs: Sequence[ClaimedJob], *, worker_id: UUID, batch_id: UUID) -> list[Held]:
    """What this process keeps of the jobs of one claim."""
    delays: dict[int, list[float]] = {}
    for job in jobs:
        delays.setdefault(job.priority, []).append(max(0.0, (job.started_at - job.ready_at).total_seconds()))
    for priority, seconds in delays.items():
        metrics.observe_all(_START_DELAYS[priority], seconds)
    now = asyncio.get_running_loop().time()
    places = _Places(resources)
    return [_hold(resources, job, places, worker_id=worker_id, batch_id=batch_id, now=now) for job in jobs]


class _Places:
    """Where the jobs of one claim run: None = in this process."""

    __slots__ = ("_resources", "_room")

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._room: int | None = None

    def of(self, handler: Handler, job: ClaimedJob) -> ChildProcesses | None:
        """One that was lost with its process may have been its end, so it runs alone.

        Where more were lost at once than can be alone, each is the less likely to have been it. To run them one after
        the other would keep jobs waiting for minutes that any other worker's death had nothing to do with; so the rest
        runs here, and alone only after a second loss.
        """
        if handler.isolate == "process":
            return self._resources.children
        if not job.hooks & _ISOLATED:
            return None
        if self._room is None:
            self._room = self._resources.suspects.room
        self._room -= 1
        return self._resources.suspects if self._room >= 0 or job.losses > 1 else None


def _hold(
    resources: Resources, job: ClaimedJob, places: _Places, *, worker_id: UUID, batch_id: UUID, now: float
) -> Held:
    """What this process keeps of a claimed job; its attempt is ready to run. `now` is by the loop's clock."""
    handler = resources.handlers[job.type_id]
    timeout = handler.timeout if job.timeout_ms is None else job.timeout_ms / 1000
    max_attempts = handler.max_attempts if job.max_attempts is None else job.max_attempts
    context = Context(
        job_id=job.job_id,
        tenant_id=job.tenant_id,
        job_type=handler.type,
        attempt=job.attempt,
        max_attempts=max_attempts,
        # The loop's clock is the monotonic one.
        deadline_monotonic=now + timeout,
        metadata=None if job.metadata is None else _mapping(job.metadata),
        losses=job.losses,
    )
    attempt: Running
    children = places.of(handler, job)
    if children is not None:
        attempt = IsolatedAttempt(
            handler,
            job.payload,
            context,
            children=children,
            timeout_seconds=timeout,
            cancel_grace_seconds=resources.settings.cancel_grace_seconds,
        )
    else:
        attempt = Attempt(
            handler,
            job.payload,
            context,
            threads=resources.threads,
            timeout_seconds=timeout,
            cancel_grace_seconds=resources.settings.cancel_grace_seconds,
        )
    return Held(
        job=job,
        worker_id=worker_id,
        batch_id=batch_id,
        handler=handler,
        max_attempts=max_attempts,
        timeout_seconds=timeout,
        context=context,
        attempt=attempt,
        deadline=now + timeout,
    )


# A plain number: a flag's own & costs a microsecond, and is asked for each job.
_ISOLATED = int(Hook.ISOLATED)
# The children are kept: looking one up costs more than the observation.
_START_DELAYS = [metrics.start_delay_seconds.labels(name) for name in PRIORITY_NAMES]


def _mapping(metadata: bytes) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.json.decode(metadata)
    return value
