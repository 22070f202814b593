"""Starting a claimed job: its handler, its limits, its context, and where it runs."""

import asyncio
import time
from typing import Any
from uuid import UUID

import msgspec

from barnabas.contract.topics import PRIORITY_NAMES
from barnabas.domain.jobs import Hook
from barnabas.postgres.turns import ClaimedJob
from barnabas.runtime import metrics
from barnabas.sdk.context import Context
from barnabas.sdk.isolated import IsolatedAttempt
from barnabas.sdk.running import Attempt
from barnabas_worker.holdings import Held, Running
from barnabas_worker.resources import Resources


def hold(resources: Resources, job: ClaimedJob, *, worker_id: UUID, batch_id: UUID) -> Held:
    """What this process keeps of a claimed job; its attempt is ready to run."""
    handler = resources.handlers[job.type_id]
    timeout = handler.timeout if job.timeout_ms is None else job.timeout_ms / 1000
    max_attempts = handler.max_attempts if job.max_attempts is None else job.max_attempts
    context = Context(
        job_id=job.job_id,
        tenant_id=job.tenant_id,
        job_type=handler.type,
        attempt=job.attempt,
        max_attempts=max_attempts,
        deadline_monotonic=time.monotonic() + timeout,
        metadata=None if job.metadata is None else _mapping(job.metadata),
        losses=job.losses,
    )
    attempt: Running
    if handler.isolate == "process" or job.hooks & Hook.ISOLATED:
        attempt = IsolatedAttempt(
            handler,
            job.payload,
            context,
            children=resources.children,
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
    _START_DELAYS[job.priority].observe(max(0.0, (job.started_at - job.ready_at).total_seconds()))
    return Held(
        job=job,
        worker_id=worker_id,
        batch_id=batch_id,
        handler=handler,
        max_attempts=max_attempts,
        timeout_seconds=timeout,
        context=context,
        attempt=attempt,
        deadline=asyncio.get_running_loop().time() + timeout,
    )


# The children are kept: looking one up costs more than the observation.
_START_DELAYS = [metrics.start_delay_seconds.labels(name) for name in PRIORITY_NAMES]


def _mapping(metadata: bytes) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.json.decode(metadata)
    return value
