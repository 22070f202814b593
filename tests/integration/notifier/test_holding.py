"""Who holds a delivery: one row an event and endpoint, whatever is repeated, lost, full, killed or stopped."""

import asyncio
from collections import Counter
from uuid import UUID

import pytest

from barnabas.contract import topics
from barnabas.contract.events import JobEvent
from barnabas.domain.deliveries import DeliveryState
from barnabas.domain.ids import uuid7
from barnabas.kafka.partitions import ConsumedRecord
from barnabas.postgres.deliveries import FinishingDelivery, finish_deliveries, release_deliveries
from barnabas_notifier.claim import claim_due
from barnabas_notifier.finish import write_once
from barnabas_notifier.take import take_once
from barnabas_notifier.upkeep import recall_batches_once
from tests.integration.notifier.conftest import Post, StartNotifier, idle_notifier, key_of, records_of
from tests.support.eventually import eventually
from tests.support.receiver import answer, hang
from tests.support.topics import TopicReader


async def test_an_event_that_comes_twice_makes_one_delivery(post: Post, start_notifier: StartNotifier) -> None:
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.url("/"))
    events = await post.ended_jobs(tenant_id, 3)
    await start_notifier()

    await post.announce([*events, *events])
    await post.announce(events)
    await post.announce(later := await post.ended_jobs(tenant_id))
    await post.until(tenant_id, succeeded=4)

    sent = Counter(request.webhook_id for request in post.receiver.requests)
    assert sent == Counter(str(each.id) for each in [*events, *later])


async def test_a_crash_between_row_and_offset_makes_no_second_delivery(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.url("/"))
    events = await post.ended_jobs(tenant_id)
    async with idle_notifier(post.world) as dead:
        await take_once(records_of(events), dead)
        dead_id = dead.identity.worker_id
    await start_notifier()

    # The record comes again, because its offset was never committed.
    await post.announce(events)
    await post.announce(later := await post.ended_jobs(tenant_id))
    rows = await post.until(tenant_id, running=1, succeeded=1)
    assert (rows[0]["worker_id"], rows[0]["attempt"]) == (dead_id, 1)

    async with post.world.engine.session() as session:
        await release_deliveries(session, dead_id, [(key_of(rows[0]), None)])
    [row, _] = await post.deliveries(tenant_id)
    assert (row["state"], row["attempt"], row["fence"]) == (DeliveryState.PENDING, 0, 1)
    await post.bring_back(row)
    [row, _] = await post.until(tenant_id, succeeded=2)

    assert (row["attempt"], row["fence"]) == (1, 2)
    assert [request.webhook_id for request in post.receiver.requests] == [str(later[0].id), str(events[0].id)]


async def test_what_a_full_lane_has_no_room_for_is_parked_and_sent_later_in_order(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id = await post.world.tenant()
    gate = asyncio.Event()
    await post.endpoint(tenant_id, post.receiver.script("/", answer(200, until=gate)))
    events = await post.ended_jobs(tenant_id, 40)
    notifier = await start_notifier(LANE_ROWS="4", CALLS_PER_ENDPOINT="1")

    await post.announce(events)
    await eventually(lambda: post.deliveries(tenant_id), until=lambda rows: len(rows) == 40)
    states = await post.states(tenant_id)
    assert states["running"] <= 5
    assert states["parked"] >= 35
    assert notifier.resources.lanes.waiting <= 4

    gate.set()
    await post.until(tenant_id, succeeded=40)

    assert [request.webhook_id for request in post.receiver.requests] == [str(event.id) for event in events]
    assert post.receiver.in_flight_max["/"] == 1


async def test_a_hanging_endpoint_delays_no_other_and_holds_up_no_partition(
    post: Post, start_notifier: StartNotifier
) -> None:
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.script("/hangs", hang()))
    await post.endpoint(tenant_id, post.receiver.url("/answers"))
    events = await post.ended_jobs(tenant_id, 300)
    notifier = await start_notifier(DRAIN_SECONDS="1")

    await post.announce(events)
    await post.receiver.until("/answers", 300)

    # Every event has its row although the receiver has answered nothing, and only its share of calls hangs: a full
    # lane, and the calls that left it before or after it was full.
    states = await eventually(lambda: post.states(tenant_id), until=lambda states: states.get("succeeded") == 300)
    assert 256 <= states["running"] <= 256 + 8
    assert states["running"] + states["parked"] == 300
    assert post.receiver.in_flight_max["/hangs"] == 8
    assert await notifier.end() == 0


async def test_a_tenant_with_many_hanging_endpoints_leaves_room_for_the_deliveries_of_others(
    post: Post, start_notifier: StartNotifier
) -> None:
    hanging_id, other_id = await post.world.tenant(), await post.world.tenant()
    for number in range(20):
        await post.endpoint(hanging_id, post.receiver.script(f"/hangs/{number}", hang()))
    await post.endpoint(other_id, post.receiver.url("/answers"))
    hanging, others = await post.ended_jobs(hanging_id, 10), await post.ended_jobs(other_id, 30)
    notifier = await start_notifier(LANE_ROWS="4", LANES_ROWS="40", CALLS_PER_TENANT="8", DRAIN_SECONDS="1")

    await post.announce(hanging)
    await eventually(lambda: post.deliveries(hanging_id), until=lambda rows: len(rows) == 200)
    await post.announce(others)
    await post.until(other_id, succeeded=30)

    # Three quarters of the lanes and the calls: what the other one left is used, and no more than that.
    await post.until(hanging_id, running=30 + 8, parked=200 - 38)
    assert notifier.resources.lanes.waiting == 30


async def test_a_tenant_with_few_endpoints_does_not_wait_for_the_rows_of_one_with_many(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barnabas_notifier.route._ROWS_MAX", 2)
    many_id, few_id = await post.world.tenant(), await post.world.tenant()
    for tenant_id in (many_id, many_id, many_id, few_id):
        await post.endpoint(tenant_id, post.receiver.url("/"))
    events = [*await post.ended_jobs(many_id, 2), *await post.ended_jobs(few_id, 2)]
    async with idle_notifier(post.world) as notifier:
        await take_once(records_of(events), notifier)

        assert [key.tenant_id for key in notifier.lanes.endpoints()] == [few_id, many_id, many_id, many_id]
    assert (await post.states(many_id), await post.states(few_id)) == ({"running": 6}, {"running": 2})


async def test_a_notifier_that_lost_its_delivery_cannot_finish_it(post: Post) -> None:
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.url("/"))
    async with idle_notifier(post.world) as zombie, idle_notifier(post.world) as successor:
        await take_once(records_of(await post.ended_jobs(tenant_id)), zombie)
        [held] = zombie.lanes.take(1)
        key, fence = held.delivery.key, held.delivery.fence
        async with post.world.engine.session() as session:
            await release_deliveries(session, zombie.identity.worker_id, [(key, None)])
        await claim_due([key], successor)

        zombie.end(held, FinishingDelivery(key, fence, DeliveryState.SUCCEEDED, None))
        written = await write_once(zombie)
        async with post.world.engine.session() as session:
            # With the right fence, but under the wrong name.
            forged = [FinishingDelivery(key, fence + 1, DeliveryState.SUCCEEDED, None)]
            finishes = await finish_deliveries(session, zombie.identity.worker_id, forged)

        [row] = await post.deliveries(tenant_id)
        assert written == 0
        assert finishes.moved == frozenset()
        assert (row["state"], row["worker_id"]) == (DeliveryState.RUNNING, successor.identity.worker_id)


async def test_a_write_that_is_repeated_after_a_lost_answer_counts_as_done(post: Post) -> None:
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.url("/"))
    async with idle_notifier(post.world) as notifier:
        await take_once(records_of(await post.ended_jobs(tenant_id)), notifier)
        [held] = notifier.lanes.take(1)
        finishing = [FinishingDelivery(held.delivery.key, held.delivery.fence, DeliveryState.SUCCEEDED, None)]
        async with post.world.engine.session() as session:
            first = await finish_deliveries(session, notifier.identity.worker_id, finishing)
            second = await finish_deliveries(session, notifier.identity.worker_id, finishing)

    assert first.moved == second.moved != frozenset()


async def test_a_stopped_notifier_hands_back_what_it_could_not_send(
    post: Post, start_notifier: StartNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The calls hang for ever: nearly all of the drain's time is for the hand-back, however slow the machine.
    monkeypatch.setattr("barnabas_notifier.send._DRAIN_SHARE", 0.02)
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.script("/", hang()))
    events = await post.ended_jobs(tenant_id, 5)
    notifier = await start_notifier(CALLS_PER_ENDPOINT="2", DRAIN_SECONDS="60")
    worker_id = notifier.resources.identity.worker_id

    async with TopicReader(post.world.kafka, topics.DELIVERIES_RETRY.name) as handed_back:
        await post.announce(events)
        await post.receiver.until("/", 2)
        await post.until(tenant_id, running=5)
        assert await notifier.end() == 0

        rows = await post.until(tenant_id, pending=5)
        for row in rows:
            await handed_back.until(lambda record, row=row: row["event_id"].bytes in (record.value or b""))  # type: ignore[misc]
    assert {row["attempt"] for row in rows} == {0}
    assert await post.attempts(tenant_id) == []
    assert await _leases(post, worker_id) == (0, 0)


async def test_calls_in_flight_may_end_while_draining(post: Post, start_notifier: StartNotifier) -> None:
    tenant_id = await post.world.tenant()
    gate = asyncio.Event()
    await post.endpoint(tenant_id, post.receiver.script("/", answer(200, until=gate)))
    notifier = await start_notifier(DRAIN_SECONDS="120")
    await post.announce(await post.ended_jobs(tenant_id))
    await post.receiver.until("/", 1)

    ending = asyncio.create_task(notifier.end())
    await eventually(lambda: notifier.resources.progress.taking_over.is_set())
    gate.set()

    assert await ending == 0
    assert await post.states(tenant_id) == {"succeeded": 1}


async def test_a_notifier_that_lost_its_lease_goes_on_under_a_new_id(post: Post, start_notifier: StartNotifier) -> None:
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.script("/", hang()))
    other = await post.endpoint(tenant_id, post.receiver.url("/other"), event_types=["job.failed"])
    # An idle holder notices the loss a third of a lease later.
    notifier = await start_notifier(LEASE_SECONDS="12")
    await post.announce(await post.ended_jobs(tenant_id))
    await post.receiver.until("/", 1)
    old_id = notifier.resources.identity.worker_id

    await post.world.superuser.execute("DELETE FROM workers WHERE worker_id = $1", old_id)
    identity = notifier.resources.identity
    await eventually(lambda: identity.alive and identity.worker_id != old_id)

    # What it held is dropped, not written: the row is the reaper's to hand back.
    assert notifier.resources.holdings.deliveries == {}
    [row] = await post.deliveries(tenant_id)
    assert (row["state"], row["worker_id"]) == (DeliveryState.RUNNING, old_id)
    await post.world.superuser.execute(
        "UPDATE endpoints SET event_types = NULL WHERE endpoint_id = $1", other.endpoint_id
    )
    await post.announce(await post.ended_jobs(tenant_id))
    await post.receiver.until("/other", 1)


async def test_parked_deliveries_of_a_dead_notifier_are_found(
    post: Post, start_notifier: StartNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that comes before the lease looks for nothing, and the next may be half a minute away.
    monkeypatch.setattr("barnabas_notifier.upkeep._SWEEP_SECONDS", 0.5)
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.url("/"))
    async with idle_notifier(post.world, LANE_ROWS="2") as dead:
        await take_once(records_of(await post.ended_jobs(tenant_id, 10)), dead)
        assert await post.states(tenant_id) == {"running": 2, "parked": 8}
        await post.world.superuser.execute("DELETE FROM workers")

    await start_notifier()

    await post.until(tenant_id, running=2, succeeded=8)
    assert len(post.receiver.requests) == 8


async def test_a_deleted_endpoint_cancels_what_waits_in_memory_and_in_postgres(
    post: Post, start_notifier: StartNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever empties the lane says so: neither of these has to come first.
    monkeypatch.setattr("barnabas_notifier.upkeep._SWEEP_SECONDS", 3_600.0)
    monkeypatch.setattr("barnabas_notifier.unpark._WAIT_SECONDS", 3_600.0)
    tenant_id = await post.world.tenant()
    endpoint = await post.endpoint(tenant_id, post.receiver.script("/", hang()))
    await start_notifier(LANE_ROWS="4", CALLS_PER_ENDPOINT="1", DRAIN_SECONDS="1")
    await post.announce(await post.ended_jobs(tenant_id, 10))
    await post.receiver.until("/", 1)
    await eventually(lambda: post.deliveries(tenant_id), until=lambda rows: len(rows) == 10)

    await post.world.superuser.execute(
        "UPDATE endpoints SET deleted_at = now() WHERE endpoint_id = $1", endpoint.endpoint_id
    )
    rows = await post.until(tenant_id, running=1, cancelled=9)
    await post.endpoint(tenant_id, post.receiver.url("/other"))
    await post.announce(await post.ended_jobs(tenant_id))
    await post.receiver.until("/other", 1)

    assert {row["error"] for row in rows if row["state"] == DeliveryState.CANCELLED} == {"endpoint_deleted"}
    assert {row["attempt"] for row in rows if row["state"] == DeliveryState.CANCELLED} == {0}
    assert len(post.receiver.at("/")) == 1


async def test_a_batch_that_nobody_remembers_is_handed_back(post: Post) -> None:
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.url("/"))
    async with idle_notifier(post.world) as notifier:
        first, second = await post.ended_jobs(tenant_id, 2)
        await take_once(records_of([first]), notifier)
        # As after a commit whose answer was lost.
        notifier.lanes.empty_all()
        notifier.holdings.drop_all()
        await take_once(records_of([second]), notifier)

        assert await recall_batches_once(notifier) == 1
        assert await recall_batches_once(notifier) == 0

    states = [row["state"] for row in await post.deliveries(tenant_id)]
    assert states == [DeliveryState.PENDING, DeliveryState.RUNNING]


async def test_a_record_that_cannot_be_read_or_stored_harms_no_other(post: Post) -> None:
    tenant_id = await post.world.tenant()
    await post.endpoint(tenant_id, post.receiver.url("/"))
    good = await post.ended_jobs(tenant_id, 3)
    # A day that has no partition.
    ancient = _like(good[0], uuid7(86_400_000, bytes(10)))
    garbage = [
        ConsumedRecord(topic, 0, 100, b"key", value, (), 0, 1)
        for topic in (topics.RESULTS.name, topics.DELIVERIES_RETRY.name)
        for value in (None, b"", b"{}", b"\x00" * 200)
    ]
    async with idle_notifier(post.world) as notifier:
        await take_once([*garbage, *records_of([good[0], ancient, *good[1:]])], notifier)

        assert await post.states(tenant_id) == {"running": 3}
        assert notifier.lanes.waiting == 3


async def test_an_event_put_aside_finds_the_endpoint_that_was_made_meanwhile(post: Post) -> None:
    tenant_id = await post.world.tenant()
    first, second = await post.ended_jobs(tenant_id, 2)
    async with idle_notifier(post.world) as notifier:
        await take_once(records_of([first]), notifier)
        assert notifier.aside.put(records_of([second])) == []
        await post.endpoint(tenant_id, post.receiver.url("/"))
        waiting = await eventually(notifier.aside.take)
        await take_once(waiting, notifier)

        assert [row["event_id"] for row in await post.deliveries(tenant_id)] == [second.id]
        assert notifier.aside.put(records_of([second])) == records_of([second])


def _like(event: JobEvent, event_id: UUID) -> JobEvent:
    return JobEvent(
        id=event_id,
        type=event.type,
        tenant_id=event.tenant_id,
        job_id=event.job_id,
        job_type=event.job_type,
        attempt=1,
        fence=1,
    )


async def _leases(post: Post, worker_id: UUID) -> tuple[int, int]:
    row = await post.world.superuser.fetchrow(
        "SELECT (SELECT count(*) FROM lease_batches WHERE worker_id = $1),"
        " (SELECT count(*) FROM workers WHERE worker_id = $1)",
        worker_id,
    )
    return row[0], row[1]
