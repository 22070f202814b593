"""What a worker reads from the environment."""

from typing import Annotated

from pydantic import Field, model_validator

from barnabas.domain.leases import Lease
from barnabas.runtime.settings import ServiceSettings


class WorkerSettings(ServiceSettings):
    """Settings of one worker process."""

    app: Annotated[str | None, Field(examples=["scoring.app:app"])] = None
    """The handlers, as `module:attribute`; the built-in ones are always there."""

    slots: Annotated[int, Field(ge=1, le=5_000)] = 512
    """Attempts that run at once in this process; a sync handler's slot is a thread."""

    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    """How long a worker that has stopped answering keeps its jobs. Every process must have the same."""

    children: Annotated[int, Field(ge=1, le=256)] = 8
    """Attempts that run at once in processes of their own; others wait for one within their slot."""

    look_ahead_bytes: Annotated[int, Field(ge=65_536)] = 16 * 1024 * 1024
    """Envelopes held in memory before they are claimed; above that reading stops."""

    claim_rows_max: Annotated[int, Field(ge=1, le=2_000)] = 500
    """Jobs claimed by one statement at the most."""

    turns: Annotated[int, Field(ge=1, le=4)] = 2
    """Transactions in flight at once: while one waits for the disk, the next is prepared."""

    cancel_grace_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """How long a handler may go on after it was told that its job is cancelled."""

    allow_private_endpoints: bool = False
    """Whether the built-in `http_request` may call addresses that are not public; for development."""

    @model_validator(mode="after")
    def _lease_outlives_renewals(self) -> "WorkerSettings":
        # Raises with the reason and a value that would do.
        Lease(seconds=self.lease_seconds, renew_seconds=min(1.0, self.lease_seconds / 3))
        return self
