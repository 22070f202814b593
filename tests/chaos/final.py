"""The final state of a run as plain values: what Postgres and the topics hold once nothing moves any more.

Made by `rows.read_final` from a real system, by the simulator from its model. Times are in seconds of the ledger's
clock. States and kinds are the names that the API uses.
"""

import msgspec


class _Row(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Cheap to make by the million, and written to a file beside the ledger."""


class OpenJob(_Row, frozen=True, gc=False, omit_defaults=True):
    """A job that has not ended."""

    tenant: str
    job: str
    state: str
    attempt: int = 0
    """Charged attempts so far, the running one included."""
    fence: int = 0
    """Claims so far."""
    losses: int = 0
    type: str = ""


class EndedJob(_Row, frozen=True, gc=False, omit_defaults=True):
    """A job that has ended."""

    tenant: str
    job: str
    state: str
    attempt: int
    fence: int
    event_id: str
    result_hash: str = ""
    """Empty when it returned nothing, or when nobody compares results."""
    started_at: float | None = None
    """When the last claim was; None when it was never claimed."""
    finished_at: float = 0.0
    losses: int = 0
    reason: str | None = None
    """Why it is a dead letter."""
    held: bool = True
    """Whether a worker held it at its end. A job that is cancelled while it waits is held by nobody."""
    type: str = ""


class AttemptRow(_Row, frozen=True, gc=False, omit_defaults=True):
    """A claim that did not end its job; `kind` is `attempt`, `loss`, `hand_back` or `snooze`."""

    tenant: str
    job: str
    attempt: int
    fence: int
    kind: str
    started_at: float | None = None
    finished_at: float = 0.0
    next_at: float | None = None
    """Not to be claimed again before."""


class KeyRow(_Row, frozen=True, gc=False, omit_defaults=True):
    """What an idempotency key stands for."""

    tenant: str
    key: str
    job: str


class RedriveRow(_Row, frozen=True, gc=False, omit_defaults=True):
    """The new job that took a dead letter's place."""

    tenant: str
    dead: str
    job: str


class EndpointRow(_Row, frozen=True, gc=False, omit_defaults=True):
    """An endpoint, and from when until when it takes events."""

    tenant: str
    endpoint: str
    created_at: float = 0.0
    event_types: tuple[str, ...] | None = None
    """None means all."""
    until: float | None = None
    """When it was disabled or deleted."""


class DeliveryRow(_Row, frozen=True, gc=False, omit_defaults=True):
    """One event to one endpoint."""

    tenant: str
    event_id: str
    endpoint: str
    job: str
    state: str
    attempt: int
    fence: int = 0
    finished_at: float | None = None
    last_status: int | None = None
    delivery: str = ""
    """Its public id."""


class DeadLetterRow(_Row, frozen=True, gc=False, omit_defaults=True):
    """An open dead letter; `kind` is `job` or `delivery`, `ref` the job's or the delivery's public id."""

    tenant: str
    kind: str
    ref: str
    reason: str = ""


class GateRow(_Row, frozen=True, gc=False, omit_defaults=True):
    """A limit, and how many it counts as running; `kind` is `tenant` or `type`."""

    tenant: str
    kind: str
    type: str
    used: int
    allowed: int | None = None


class EventRecord(_Row, frozen=True, gc=False, omit_defaults=True):
    """A record about an ended job, of `results` or, with a reason, of `jobs.dlq`."""

    partition: int
    offset: int
    tenant: str
    event_id: str
    job: str
    type: str
    attempt: int = 0
    fence: int = 0
    reason: str | None = None
    at: float | None = None
    """When the producer made it."""


class DeadDeliveryRecord(_Row, frozen=True, gc=False, omit_defaults=True):
    """A record of `deliveries.dlq`."""

    partition: int
    offset: int
    tenant: str
    event_id: str
    endpoint: str
    job: str = ""


class PartitionRead(_Row, frozen=True, gc=False, omit_defaults=True):
    """What was read of one partition: `count` records of the offsets from `low` up to, not including, `high`."""

    topic: str
    partition: int
    low: int
    high: int
    count: int


class Final(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is there at the end."""

    open: list[OpenJob] = []
    ended: list[EndedJob] = []
    attempts: list[AttemptRow] = []
    keys: list[KeyRow] = []
    redrives: list[RedriveRow] = []
    endpoints: list[EndpointRow] = []
    deliveries: list[DeliveryRow] = []
    dead_letters: list[DeadLetterRow] = []
    gates: list[GateRow] = []
    events: list[EventRecord] | None = []
    """Records of `results`; None where nobody looked."""
    dead_jobs: list[EventRecord] | None = []
    """Records of `jobs.dlq`; None where nobody looked."""
    dead_deliveries: list[DeadDeliveryRecord] | None = []
    """Records of `deliveries.dlq`; None where nobody looked."""
    partitions: list[PartitionRead] = []
    left: dict[str, int] = {}
    """Rows in tables that are empty when nothing moves, by table."""
    counted: dict[str, int] = {}
    """Jobs by state as the product itself tells them; a state that isn't here isn't compared."""
