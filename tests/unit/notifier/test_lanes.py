"""Whose turn it is: fair between tenants and endpoints, bounded everywhere."""

import random
from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

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
    bring(into, target.key, room)
    return room


def bring(into: Lanes, key: EndpointKey, room: int) -> None:
    """Push as many deliveries as were promised."""
    into.push(
        Held(
            ClaimedDelivery(DeliveryKey(key.tenant_id, UUID(int=n), key.endpoint_id), UUID(int=n), 1, 1),
            _WORKER,
            _WORKER,
        )
        for n in range(room)
    )
    into.keep_promises({key: room})


def has_room(made: Lanes, target: LiveEndpoint) -> bool:
    """Whether one more would find room; nothing is left of the question."""
    found = made.promise(target)
    made.keep_promises({target.key: int(found)})
    if (lane := made.lane(target.key)) is not None:
        made.parked_are_taken(lane, lane.parkings)
    return found


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
    assert [fill(made, endpoint(tenant, tenant), 12) for tenant in (2, 3, 4)] == [4, 1, 0]
    assert made.waiting == 15


def test_a_tenant_whose_endpoints_all_hang_leaves_room_for_the_next_ones() -> None:
    made = lanes(lane_rows=10, lanes_rows=1_000, per_tenant=8)
    for number in range(400):
        fill(made, endpoint(1, number), 130)
    assert made.waiting == 750

    hanging = made.take(100)
    assert len(hanging) == 8
    # What its calls left is its own again, and no more than that.
    assert sum(room for _, room in made.promise_parked(400)) == 8
    assert [fill(made, endpoint(tenant, tenant), 10) for tenant in range(2, 9)] == [10] * 7


def test_two_tenants_with_more_than_fits_come_to_hold_about_the_same() -> None:
    made = lanes(lane_rows=4, lanes_rows=70)
    held = {tenant: sum(fill(made, endpoint(tenant, 100 * tenant + n), 10) for n in range(50)) for tenant in (1, 2)}
    assert held == {1: 53, 2: 13}

    for _ in range(60):
        for one in made.take(2):
            held[one.endpoint_key.tenant_id.int] -= 1
            made.called(one)
        for lane, room in made.promise_parked(50):
            held[lane.endpoint.key.tenant_id.int] += room
            bring(made, lane.endpoint.key, room)

    # Three sevenths of 70 each, but for who is asked first.
    assert all(26 <= rows <= 34 for rows in held.values())


def test_places_for_parked_deliveries_go_round_tenants_and_then_their_endpoints() -> None:
    made = lanes(lane_rows=4)
    for tenant, number in [(1, 11), (1, 12), (1, 13), (2, 21), (3, 31), (3, 32)]:
        made.note_parked(made.meet(endpoint(tenant, number)))

    rounds = []
    for limit in (2, 2, 2, 2, 10):
        found = made.promise_parked(limit)
        rounds.append([lane.endpoint.key.endpoint_id.int for lane, _ in found])
        made.keep_promises({lane.endpoint.key: room for lane, room in found})

    assert rounds == [[11, 21], [31, 12], [21, 32], [13, 21], [31, 11, 21, 32, 12, 13]]


@given(
    lanes_rows=st.integers(1, 40),
    lane_rows=st.integers(1, 12),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 3), st.integers(1, 12))),
)
def test_memory_is_bounded_and_who_has_nothing_gets_every_free_place(
    lanes_rows: int, lane_rows: int, steps: list[tuple[int, int, int, int]]
) -> None:
    made = lanes(lane_rows=lane_rows, lanes_rows=lanes_rows)
    held: Counter[int] = Counter()

    def note(tenant: int, room: int) -> None:
        held[tenant] += room
        # Before the last of them.
        assert room == 0 or held[tenant] - 1 < 3 * (lanes_rows - held.total() + 1)

    for step, tenant, number, count in steps:
        match step:
            case 0 | 1 | 2:
                note(tenant, fill(made, endpoint(tenant, 10 * tenant + number), count))
            case 3:
                for one in made.take(count):
                    held[one.endpoint_key.tenant_id.int] -= 1
                    made.called(one)
            case _:
                for lane, room in made.promise_parked(count):
                    note(lane.endpoint.key.tenant_id.int, room)
                    bring(made, lane.endpoint.key, room)
        assert made.waiting == held.total() <= lanes_rows
        assert has_room(made, endpoint(99, 99)) == (made.waiting < lanes_rows)


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
