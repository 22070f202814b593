"""Builders for attempts: a test names just what it is about."""

import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from barnabas.domain.attempts import Outcome, Raised
from barnabas.sdk.app import App, Handler
from barnabas.sdk.context import Context, Progress

JOB_ID = UUID("0190f3c2-0000-7000-8000-000000000001")
TENANT_ID = UUID("0190f3c2-0000-7000-8000-0000000000aa")


def context(
    *,
    attempt: int = 1,
    losses: int = 0,
    seconds: float = 30.0,
    metadata: Mapping[str, Any] | None = None,
    tenant_id: UUID = TENANT_ID,
    on_progress: Callable[[Progress], None] | None = None,
) -> Context:
    return Context(
        job_id=JOB_ID,
        tenant_id=tenant_id,
        job_type="test",
        attempt=attempt,
        max_attempts=4,
        deadline_monotonic=time.monotonic() + seconds,
        metadata=metadata,
        losses=losses,
        on_progress=on_progress,
    )


def handler(function: Callable[..., Any], *, timeout: float = 30.0) -> Handler:
    app = App()
    app.handler("test", timeout=timeout)(function)
    return app.handlers["test"]


def raised(outcome: Outcome) -> Raised:
    assert isinstance(outcome, Raised), outcome
    return outcome
