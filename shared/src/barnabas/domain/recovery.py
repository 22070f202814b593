"""How fast the system brings back what was left behind: the intervals that the retry-scheduler keeps.

They are here because two sides need them: the steps that act by them, and `barnabas doctor`, which says what will
happen and when. All in seconds.
"""

from typing import Final

QUESTION_SECONDS: Final = 1.0
"""The leader asks Postgres so often what waits."""

OUTBOX_STALE_SECONDS: Final = 5.0
"""An outbox row so old was left behind by its writer; a living one deletes it within fractions of a second."""

TIER_LATE_SECONDS: Final = 5.0
"""So late a delay that a tier should have carried is taken up by its timer."""

OVERDUE_GRACE_SECONDS: Final = 10.0
"""Past its deadline an attempt has so long to be ended by its worker; then the reaper ends it."""

WOKEN_AGAIN_SECONDS: Final = 30.0
"""A parked job that was woken and not claimed is woken again after so long."""

WALK_REST_SECONDS: Final = 30.0
"""The reconciler rests so long between two walks over the open jobs."""

WALK_PAGE_ROWS: Final = 3_000
"""So many open jobs it looks at in a second."""

LOST_MARGIN_SECONDS: Final = 30.0
"""A ready job counts as lost when it is older by this than the oldest unread record of its partition."""

RESEND_SECONDS: Final = 30.0
"""What was sent again has so long to be taken, twice as long each further time."""

RESEND_DOUBLINGS_MAX: Final = 7
"""Seven doublings of 30 s: an hour between two tries for what nobody ever takes."""


def resend_interval(times: int) -> float:
    """The least time between the sending numbered `times`, from 0, and the next."""
    return RESEND_SECONDS * 2.0 ** min(times, RESEND_DOUBLINGS_MAX)


def walk_seconds(open_jobs: int) -> float:
    """How long a walk over so many open jobs takes, at the least, with the rest before it."""
    return WALK_REST_SECONDS + open_jobs / WALK_PAGE_ROWS * QUESTION_SECONDS
