"""What a lease's renewal brings besides the lease: that sharing has changed, and that somebody has a backlog."""

import asyncio


class News:
    """Set by the heartbeat on the event loop, waited for by the loops that act on it."""

    def __init__(self) -> None:
        self.revision = 0
        """Of the weights and shares in Postgres."""
        self.changed = asyncio.Event()
        """Set when the revision has changed."""
        self.backlog = asyncio.Event()
        """Set while any tenant has a backlog in this worker's queues."""

    def hear(self, revision: int, has_backlog: bool) -> None:
        """The latest; both come with each renewal that differs from the one before."""
        if revision != self.revision:
            self.revision = revision
            self.changed.set()
        if has_backlog:
            self.backlog.set()
        else:
            self.backlog.clear()
