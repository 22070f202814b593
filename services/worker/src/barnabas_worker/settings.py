"""What a worker reads from the environment."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from barnabas.contract.topics import DEFAULT_QUEUE, is_queue_name
from barnabas.domain.leases import Lease
from barnabas.runtime.settings import ServiceSettings


def _split(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not is_queue_name(name):
            raise ValueError(f"{name!r} is no name for a queue: up to 32 of a-z, 0-9 and -, not at its ends")
    return tuple(dict.fromkeys(names))


class WorkerSettings(ServiceSettings):
    """Settings of one worker process."""

    app: Annotated[str | None, Field(examples=["scoring.app:app"])] = None
    """The handlers, as `module:attribute`; the built-in ones are always there."""

    queues: Annotated[
        tuple[str, ...],
        BeforeValidator(_split),
        AfterValidator(_checked),
        Field(min_length=1, examples=["default,gpu"]),
    ] = (DEFAULT_QUEUE,)
    """The queues whose jobs this worker runs, comma-separated; one that isn't there yet is made."""

    queues_max: Annotated[int, Field(ge=1, le=1_000)] = 32
    """How many queues there may be, counted where one is made: each has 4 topics of 24 partitions."""

    topic_replication: Annotated[int, Field(ge=1, le=10)] = 1
    """Replicas of each topic that has to be made; at most the number of brokers."""

    slots: Annotated[int, Field(ge=1, le=5_000)] = 512
    """Attempts that run at once in this process; a sync handler's slot is a thread. One in 64 is kept for tenants that
    hold next to none."""

    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    """How long a worker that has stopped answering keeps its jobs. Every process must have the same."""

    children: Annotated[int, Field(ge=1, le=256)] = 8
    """Attempts of handlers with `isolate="process"` that run at once; others wait for a process within their slot."""

    suspects: Annotated[int, Field(ge=1, le=512)] = 64
    """Jobs that were lost with their process and run again at once in processes of their own, of some megabytes each;
    where they can't be forked, at most as many as children. Of more that were lost together, the rest runs with all the
    others again, once."""

    look_ahead_bytes: Annotated[int, Field(ge=65_536)] = 48 * 1024 * 1024
    """Envelopes held in memory before they are claimed; above that, who has more than his share waits in Postgres."""

    claim_rows_max: Annotated[int, Field(ge=1, le=2_000)] = 500
    """Jobs claimed by one statement at the most."""

    turns: Annotated[int, Field(ge=1, le=4)] = 2
    """Transactions in flight at once: while one waits for the disk, the next is prepared."""

    ordered_dead_letters: Literal["continue", "block"] = "continue"
    """Whether a dead letter lets the next job of its ordering key pass, or holds the line until it is redriven.
    The retry-scheduler must have the same."""

    cancel_grace_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """How long a handler may go on after it was told that its job is cancelled."""

    allow_private_endpoints: bool = False
    """Whether the built-in `http_request` may call addresses that are not public; for development."""

    @model_validator(mode="after")
    def _lease_outlives_renewals(self) -> "WorkerSettings":
        # Raises with the reason and a value that would do.
        Lease(seconds=self.lease_seconds, renew_seconds=min(1.0, self.lease_seconds / 3))
        return self
