"""Why a job isn't running, as the API says it."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from barnabas.domain.explain import Cause, Explanation

_DETAILS = """\
The figures behind the cause, by its name:

- `finished`: `outcome`, `finished_at`, `attempt`, `max_attempts`, `reason` (of a dead letter), `error` (a code)
- `running`: `worker_id`, `started_at`, `deadline`, `attempt`, `max_attempts`, `cancel_requested`
- `scheduled`: `due_at`, `was_snoozed` (put off by its handler)
- `backoff`: `due_at`, `attempt`, `max_attempts`, `error` (a code)
- `ordering_key`: `ordering_key`, `turn_of` (a job), `turn_status`, `before`
- `tenant_concurrency`, `type_concurrency`: `running`, `allowed`, `type`, `since` (parked, or null), `before`
- `tenant_starts`, `type_starts`: `starts`, `allowed`, `window_seconds`, `type`, `since` (parked, or null), `before`
- `no_worker`: `type`, `queue`, `workers_of_queue`, `worker_ids` (20 at most)
- `backlog`: `queue`, `since`, `workers`, `before`
- `queued`: `before`, `oldest_ready_at`, `ready_at`, `workers`, `slots`, `is_untold` (Kafka is still to be told of it)

`before` counts the tenant's jobs that come first; with `before_is_minimum` there are at least so many.
"""


class ExplainView(msgspec.Struct, frozen=True, kw_only=True):
    """The first cause that keeps a job from running; new names may be added to the causes."""

    id: UUID
    status: str
    cause: Cause
    message: str
    """One sentence, for people."""
    until: Annotated[
        datetime | None,
        Meta(description="When the cause ends by itself, where that is known: never sooner, maybe later."),
    ]
    details: Annotated[dict[str, Any], Meta(description=_DETAILS)]


def explain_view(job_id: UUID, status: str, explanation: Explanation) -> ExplainView:
    """An explanation as it is shown."""
    return ExplainView(
        id=job_id,
        status=status,
        cause=explanation.cause,
        message=explanation.message,
        until=explanation.until,
        details=dict(explanation.details),
    )
