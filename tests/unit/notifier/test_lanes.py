"""Whose turn it is: fair between tenants and endpoints, bounded everywhere."""

import random
from collections import Counter
from uuid import UUID

from barnabas.postgres.deliveries import ClaimedDelivery, DeliveryKey
from barnabas.postgres.live_endpoints import EndpointKey, LiveEndpoint
from barnabas_notifier.lanes import Held, Lanes

_WORKER = UUID(int=1)


def lanes(
    *, lane_rows: int = 10, lanes_rows: int = 1_000, calls: int = 100, per_tenant: int = 100, per_endpoint: int = 2
) -> Lanes:
    return Lanes(
        lane_rows=lane_rows,
        lanes_rows=lanes_rows,
        calls=calls,
        calls_per_tenant=per_tenant,
        calls_per_endpoint=per_endpoint,
    )


def endpoint(tenant: int, number: int) -> LiveEndpoint:
    return LiveEndpoint(EndpointKey(UUID(int=tenant), UUID(int=number)), "https://a.example/", None, (), {}, ("s",))


def fill(into: Lanes, target: LiveEndpoint, count: int) -> int:
    """Promise and push `count` deliveries; how many found room."""
    room = sum(into.promise(target) for _ in range(count))
    key = target.key
    into.push(
        Held(
            ClaimedDelivery(DeliveryKey(key.tenant_id, UUID(int=n), key.endpoint_id), UUID(int=n), 1, 1),
            _WORKER,
            _WORKER,
        )
        for n in range(room)
    )
    into.keep_promises({key: room})
    return room


def whose(held: list[Held]) -> list[tuple[int, int]]:
    return [(one.endpoint_key.tenant_id.int, one.endpoint_key.endpoint_id.int) for one in held]


def test_turns_go_round_tenants_and_then_their_endpoints() -> None:
    made = lanes()
    for tenant, number in [(1, 11), (1, 12), (1, 13), (2, 21)]:
        fill(made, endpoint(tenant, number), 5)

    assert whose(made.take(6)) == [(1, 11), (2, 21), (1, 12), (2, 21), (1, 13), (1, 11)]


def test_an_endpoint_at_its_limit_is_skipped_until_a_call_ends() -> None:
    made = lanes(per_endpoint=2)
    fill(made, endpoint(1, 11), 5)
    first = made.take(10)
    assert len(first) == 2
    assert made.take(10) == []

    made.called(first[0])

    assert len(made.take(10)) == 1


def test_a_tenant_at_its_limit_leaves_calls_to_the_others() -> None:
    made = lanes(per_tenant=3, per_endpoint=2)
    for number in range(11, 20):
        fill(made, endpoint(1, number), 5)
    fill(made, endpoint(2, 21), 5)

    assert Counter(tenant for tenant, _ in whose(made.take(100))) == {1: 3, 2: 2}


def test_all_calls_together_are_bounded() -> None:
    made = lanes(calls=4)
    for number in range(11, 20):
        fill(made, endpoint(number, number), 5)

    taken = made.take(100)
    assert len(taken) == 4
    made.called(taken[0])
    assert len(made.take(100)) == 1


def test_a_lane_and_all_lanes_are_bounded_and_the_rest_is_parked() -> None:
    made = lanes(lane_rows=10, lanes_rows=15)

    assert fill(made, endpoint(1, 11), 12) == 10
    assert fill(made, endpoint(2, 21), 12) == 5
    assert made.waiting == 15


def test_new_deliveries_wait_behind_parked_ones() -> None:
    made = lanes(lane_rows=4)
    target = endpoint(1, 11)
    fill(made, target, 5)
    for held in made.take(10):
        made.called(held)
    assert not made.promise(target)

    [(lane, room)] = made.promise_parked(10)
    parkings = lane.parkings
    made.keep_promises({target.key: room})
    made.parked_are_taken(lane, parkings)

    assert room == 2
    assert made.promise(target)


def test_parked_deliveries_that_came_while_asking_are_not_forgotten() -> None:
    made = lanes(lane_rows=1)
    target = endpoint(1, 11)
    lane = made.meet(target)
    made.note_parked(lane)
    parkings = lane.parkings
    assert not made.promise(target)

    made.parked_are_taken(lane, parkings)

    assert lane.has_parked


def test_nothing_is_kept_of_endpoints_that_are_done_and_counts_never_drift() -> None:
    chance = random.Random(7)
    made = lanes(lane_rows=5, lanes_rows=40, calls=10, per_tenant=6, per_endpoint=3)
    calling: list[Held] = []
    for _ in range(5_000):
        match chance.randrange(5):
            case 0 | 1:
                tenant = chance.randrange(4)
                fill(made, endpoint(tenant, 10 * tenant + chance.randrange(3)), chance.randrange(1, 8))
            case 2:
                calling += made.take(chance.randrange(1, 8))
            case 3 if calling:
                made.called(calling.pop(chance.randrange(len(calling))))
            case 4 if calling:
                back = [calling.pop() for _ in range(chance.randrange(1, len(calling) + 1))]
                made.push_back(back)
        for lane, room in made.promise_parked(10):
            made.keep_promises({lane.endpoint.key: room})
            made.parked_are_taken(lane, lane.parkings)
        assert made.calling == len(calling) <= 10
        assert max(Counter(tenant for tenant, _ in whose(calling)).values(), default=0) <= 6
        assert max(Counter(whose(calling)).values(), default=0) <= 3

    while made.waiting or calling:
        calling += made.take(100)
        for held in calling:
            made.called(held)
        calling = []
    for lane, room in made.promise_parked(100):
        made.parked_are_taken(lane, lane.parkings)
        made.keep_promises({lane.endpoint.key: room})

    assert made.endpoints() == []
    assert (made.waiting, made.calling) == (0, 0)
    assert made._tenants == {}
    assert made._parked == {}
