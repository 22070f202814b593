"""What a handler may ask about the attempt it is running, and the ways in which it talks back.

One per attempt. The worker keeps the other end: it takes the latest progress, and tells a running handler to stop.
Reading and reporting work from any thread.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

import structlog

from barnabas.sdk.errors import CancelledByRequest

_NOTHING: Mapping[str, Any] = MappingProxyType({})
# What fits on one line of a screen; the rest of a progress message is cut.
_MESSAGE_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt has come."""

    percent: float
    message: str | None


class Context:
    """The attempt that a handler is running.

    `attempt` counts from 1. `losses` counts the runs that ended with the death of their process; those aren't attempts.
    """

    __slots__ = (
        "_cancelled",
        "_log",
        "_on_progress",
        "_progress",
        "_taken",
        "_waiters",
        "attempt",
        "deadline_monotonic",
        "job_id",
        "job_type",
        "losses",
        "max_attempts",
        "metadata",
        "tenant_id",
    )

    def __init__(
        self,
        *,
        job_id: UUID,
        tenant_id: UUID,
        job_type: str,
        attempt: int,
        max_attempts: int,
        deadline_monotonic: float,
        metadata: Mapping[str, Any] | None = None,
        losses: int = 0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.job_id = job_id
        self.tenant_id = tenant_id
        self.job_type = job_type
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.deadline_monotonic = deadline_monotonic
        self.metadata = _NOTHING if metadata is None else metadata
        self.losses = losses
        self._on_progress = on_progress
        self._progress: Progress | None = None
        self._taken: Progress | None = None
        self._cancelled = False
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] | None = None
        self._log: structlog.typing.FilteringBoundLogger | None = None

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        """A logger that names the job and the attempt in every line."""
        # Made on first use: most handlers never log, and binding costs more than running an echo.
        if self._log is None:
            logger: structlog.typing.FilteringBoundLogger = structlog.get_logger("barnabas.handler")
            self._log = logger.bind(
                job_id=str(self.job_id), tenant_id=str(self.tenant_id), job_type=self.job_type, attempt=self.attempt
            )
        return self._log

    @property
    def deadline(self) -> datetime:
        """When this attempt times out, by this machine's clock; aware and in UTC."""
        return datetime.now(UTC) + timedelta(seconds=self.deadline_monotonic - time.monotonic())

    @property
    def seconds_left(self) -> float:
        """Seconds until this attempt times out; never below zero."""
        return max(0.0, self.deadline_monotonic - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should stop: cancelled by the tenant, timed out, or its worker must go."""
        return self._cancelled

    def raise_if_cancelled(self) -> None:
        """Raise `CancelledByRequest` if this attempt should stop; for loops in sync handlers."""
        if self._cancelled:
            raise CancelledByRequest("the attempt was asked to stop")

    async def wait_cancelled(self) -> None:
        """Return when this attempt should stop; for an async handler that wants to end in its own way.

        A cancelled attempt has a short grace (a second by default) before its handler is interrupted.
        """
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        # Registered before the flag is read: a stop between the two then finds the waiter.
        self._waiters = [*(self._waiters or ()), waiter]
        if not self._cancelled:
            await waiter[1].wait()

    def progress(self, percent: float, message: str | None = None) -> None:
        """Report how far the attempt has come: 0 to 100, and a short line for people. Only the latest is kept."""
        if not 0 <= percent <= 100:
            raise ValueError(f"progress is a percentage between 0 and 100, not {percent:g}")
        report = Progress(float(percent), None if message is None else str(message)[:_MESSAGE_CHARACTERS_MAX])
        self._progress = report
        if self._on_progress is not None:
            self._on_progress(report)

    def take_progress(self) -> Progress | None:
        """For the worker: the latest report since the last time it asked."""
        # Compared, not cleared: clearing would drop a report that another thread makes between the two steps.
        report = self._progress
        if report is self._taken:
            return None
        self._taken = report
        return report

    def request_stop(self) -> None:
        """For the worker: make `cancelled` true and wake whoever waits for it. Harmless when repeated."""
        self._cancelled = True
        for loop, event in self._waiters or ():
            # The loop of a handler that is over may be closed; nobody is left to wake there.
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)
