"""What goes through a group: how much it has to read, how much it has read, and how much came out at the other end.

Three requests to the brokers whatever the load, and no record is fetched: cheap enough for every few seconds, unlike
the lag in seconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from barnabas.kafka.admin import Admin
from barnabas.kafka.lag import bounds, committed_offsets, partitions_of
from barnabas.kafka.partitions import TopicPartition


@dataclass(frozen=True, slots=True)
class Flow:
    """Sums over partitions. The last two mean something as differences only; a topic made anew takes them back."""

    waiting: int
    """Records that the group has not committed."""
    read: int
    """Records that it ever committed."""
    came_out: int
    """Records that were ever written to where it writes what it has done."""


async def flow(admin: Admin, group: str, *, into: Sequence[str], out_of: str) -> Flow:
    """Measure the group that reads the topics `into`; `out_of` is the topic of what it has done."""
    return await admin.call(lambda client: _flow(client, admin.bootstrap, group, into, out_of))


def _flow(client: Any, bootstrap: str, group: str, into: Sequence[str], out_of: str) -> Flow:
    partitions = partitions_of(client, (*into, out_of))
    committed = committed_offsets(bootstrap, group, partitions)
    read = {at: committed[at] for at in partitions if at in committed and at.topic != out_of}
    unread = [at for at in partitions if at not in committed and at.topic != out_of]
    # Where the group never committed it begins with the first record that is still there.
    read |= bounds(client, unread, latest=False)
    high = bounds(client, partitions, latest=True)
    return Flow(
        waiting=sum(max(0, high[at] - offset) for at, offset in read.items()),
        read=sum(read.values()),
        came_out=_sum(high, (at for at in partitions if at.topic == out_of)),
    )


def _sum(offsets: dict[TopicPartition, int], partitions: Iterable[TopicPartition]) -> int:
    return sum(offsets[at] for at in partitions)
