"""What the intake has read ahead: it grows while the portion before is stored, up to its bounds."""

import asyncio
from typing import Any

import pytest

from barnabas.contract.problems import problem
from barnabas.kafka.partitions import ConsumedRecord, Headers
from barnabas_ingest.intake_ahead import Portion, ReadAhead
from barnabas_ingest.lane import FLUSH_JOBS_MAX


def record(offset: int, *, value: bytes = b"", headers: Headers = ()) -> ConsumedRecord:
    return ConsumedRecord("barnabas.intake", 0, offset, b"", value, headers, 0, 1)


def portion(*offsets: int) -> Portion:
    return Portion([record(offset) for offset in offsets])


async def is_waiting(task: "asyncio.Task[object]") -> bool:
    for _ in range(3):
        await asyncio.sleep(0)
    return not task.done()


async def test_what_is_read_while_another_portion_is_stored_becomes_one_portion() -> None:
    ahead = ReadAhead()
    ahead.put(portion(1, 2))
    ahead.put(portion(3))

    assert await ahead.some()
    assert [each.offset for each in ahead.take().records] == [1, 2, 3]
    waiting = asyncio.create_task(ahead.some())
    assert await is_waiting(waiting)
    ahead.put(portion(4))
    assert await waiting


async def test_nobody_reads_on_while_a_full_portion_waits() -> None:
    ahead = ReadAhead()
    assert await ahead.room() == FLUSH_JOBS_MAX
    ahead.put(portion(*range(FLUSH_JOBS_MAX - 1)))
    assert await ahead.room() == 1
    ahead.put(portion(FLUSH_JOBS_MAX))
    waiting = asyncio.create_task(ahead.room())

    assert await is_waiting(waiting)
    ahead.take()
    assert await waiting == FLUSH_JOBS_MAX


@pytest.mark.parametrize(
    "huge",
    [{"value": b"x" * 1024 * 1024}, {"headers": (("x", b"x" * 1024 * 1024),)}, {"headers": (("x", None),) * 20_000}],
    ids=["value", "header", "headers"],
)
async def test_a_few_huge_records_are_a_full_portion_too(huge: dict[str, Any]) -> None:
    ahead = ReadAhead()
    ahead.put(Portion([record(at, **huge) for at in range(4)]))

    waiting = asyncio.create_task(ahead.room())
    assert await is_waiting(waiting)
    await ahead.full_within(3_600)
    ahead.close()

    assert await waiting == 0


async def test_the_end_wakes_whoever_waits() -> None:
    ahead = ReadAhead()
    for_some = asyncio.create_task(ahead.some())
    assert await is_waiting(for_some)
    ahead.close()

    assert not await for_some
    assert await ahead.room() == 0


def test_what_is_stale_goes_with_all_that_was_made_of_it() -> None:
    mixed = Portion([record(1), record(2)], [], [(record(1), problem("too_large")), (record(2), problem("too_large"))])

    kept = mixed.only(lambda each: each.offset == 2)

    assert [each.offset for each in kept.records] == [2]
    assert [each.offset for each, _ in kept.bad] == [2]
