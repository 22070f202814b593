"""Lanes: the deliveries that this notifier holds, one bounded queue an endpoint, and whose turn it is.

Turns go round the tenants and, within a tenant, round its endpoints; an endpoint or a tenant at its limit of calls is
skipped, so a receiver that hangs costs its own lane and nobody else's. Memory is shared the same way: a tenant may hold
three times what is still free, so one whose endpoints all hang leaves room for the next, and gets no new place until
the others have theirs. Plain bookkeeping: no clock, no network.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from barnabas.postgres.deliveries import ClaimedDelivery
from barnabas.postgres.live_endpoints import EndpointKey, LiveEndpoint

# A tenant's rows against the free ones: a lone tenant has three quarters of all.
_SHARE = 3


@dataclass(slots=True, eq=False)
class Held:
    """One delivery that this process holds, under the worker id and in the lease batch that claimed it."""

    delivery: ClaimedDelivery
    worker_id: UUID
    batch_id: UUID

    @property
    def endpoint_key(self) -> EndpointKey:
        """Whose lane it is in."""
        key = self.delivery.key
        return EndpointKey(key.tenant_id, key.endpoint_id)


class Lane:
    """One endpoint's deliveries in memory."""

    __slots__ = ("calling", "endpoint", "has_parked", "in_turn", "parkings", "promised", "tenant", "waiting")

    def __init__(self, endpoint: LiveEndpoint, tenant: "Tenant") -> None:
        self.endpoint = endpoint
        self.tenant = tenant
        self.waiting: deque[Held] = deque()
        self.calling = 0
        self.promised = 0
        """Places given to a claim that is on its way to the database."""
        self.has_parked = False
        """Whether Postgres may have parked deliveries of this endpoint."""
        self.parkings = 0
        """Counts them, so that an answer read before the last one was parked doesn't clear `has_parked`."""
        self.in_turn = False

    @property
    def is_idle(self) -> bool:
        """Nothing of it is here or known to be in Postgres."""
        return not (self.waiting or self.calling or self.promised or self.has_parked)


class Tenant:
    """What the lanes of one tenant have in common. It is there as long as one of them."""

    __slots__ = ("calling", "in_turn", "lanes", "parked", "rows", "turns")

    def __init__(self) -> None:
        self.lanes = 0
        self.rows = 0
        """What waits and what is promised, in all its lanes."""
        self.calling = 0
        self.turns: deque[Lane] = deque()
        self.in_turn = False
        self.parked: dict[EndpointKey, Lane] = {}
        """Its lanes that have parked deliveries; the one that got places last is the last."""


class Lanes:
    """All lanes of this process."""

    def __init__(
        self, *, lane_rows: int, lanes_rows: int, calls: int, calls_per_tenant: int, calls_per_endpoint: int
    ) -> None:
        self._lane_rows = lane_rows
        self._lanes_rows = lanes_rows
        self._calls = calls
        self._calls_per_tenant = calls_per_tenant
        self._calls_per_endpoint = calls_per_endpoint
        self._lanes: dict[EndpointKey, Lane] = {}
        self._tenants: dict[UUID, Tenant] = {}
        self._turns: deque[Tenant] = deque()
        # Those with parked deliveries; the one that got places last is the last.
        self._parked: dict[UUID, Tenant] = {}
        self._waiting = 0
        self._promised = 0
        self._calling = 0

    @property
    def waiting(self) -> int:
        """Deliveries that wait in memory for their turn."""
        return self._waiting

    @property
    def calling(self) -> int:
        """Deliveries whose call is in flight."""
        return self._calling

    def endpoints(self) -> list[EndpointKey]:
        """The endpoints with a lane."""
        return list(self._lanes)

    def meet(self, endpoint: LiveEndpoint) -> Lane:
        """The endpoint's lane, made when there is none, with the endpoint as just read."""
        lane = self._lanes.get(endpoint.key)
        if lane is None:
            tenant = self._tenants.setdefault(endpoint.key.tenant_id, Tenant())
            tenant.lanes += 1
            lane = self._lanes[endpoint.key] = Lane(endpoint, tenant)
        lane.endpoint = endpoint
        return lane

    def lane(self, key: EndpointKey) -> Lane | None:
        """The endpoint's lane, if it has one."""
        return self._lanes.get(key)

    def promise(self, endpoint: LiveEndpoint) -> bool:
        """Take one place in the endpoint's lane for a claim; false when the delivery must be parked.

        Behind parked deliveries there is no place: they came first.
        """
        lane = self.meet(endpoint)
        if lane.has_parked or self._room(lane) < 1:
            self.note_parked(lane)
            return False
        self._promise(lane, 1)
        return True

    def promise_parked(self, limit: int) -> list[tuple[Lane, int]]:
        """Places for parked deliveries: lanes at least half empty, with how many each takes; promised.

        The tenants take turns, a lane each, and then a tenant's lanes: who got none is among the first next time.
        """
        found: list[tuple[Lane, int]] = []
        walks = deque(iter(tenant.parked.values()) for tenant in self._parked.values())
        while walks and len(found) < limit:
            walk = walks.popleft()
            lane = next((each for each in walk if self._takes_parked(each)), None)
            if lane is not None and (room := self._room(lane)) > 0:
                self._promise(lane, room)
                found.append((lane, room))
                walks.append(walk)
        for lane, _ in found:
            key, tenant = lane.endpoint.key, lane.tenant
            tenant.parked[key] = tenant.parked.pop(key)
            self._parked[key.tenant_id] = self._parked.pop(key.tenant_id)
        return found

    def keep_promises(self, promised: Mapping[EndpointKey, int]) -> None:
        """The claim is over and what it brought is pushed: its places are free."""
        for key, count in promised.items():
            lane = self._lanes[key]
            self._promise(lane, -count)
            self._forget_if_idle(lane)

    def note_parked(self, lane: Lane) -> None:
        """Postgres has, or is about to have, parked deliveries of this lane."""
        lane.has_parked = True
        lane.tenant.parked[lane.endpoint.key] = lane
        self._parked[lane.endpoint.key.tenant_id] = lane.tenant
        lane.parkings += 1

    def parked_are_taken(self, lane: Lane, parkings: int) -> None:
        """Postgres had no more of them when it was asked, `parkings` having been read before."""
        if lane.parkings == parkings:
            lane.has_parked = False
            lane.tenant.parked.pop(lane.endpoint.key, None)
            if not lane.tenant.parked:
                self._parked.pop(lane.endpoint.key.tenant_id, None)
            self._forget_if_idle(lane)

    def push(self, held: Iterable[Held]) -> None:
        """Deliveries that are held now, each into its lane, which exists."""
        for one in held:
            lane = self._lanes[one.endpoint_key]
            lane.waiting.append(one)
            self._count_waiting(lane, 1)
            self._give_turn(lane)

    def push_back(self, held: Iterable[Held]) -> None:
        """Deliveries taken for a call that can't be made just now, each to the front of its lane."""
        for one in reversed(list(held)):
            lane = self._lanes[one.endpoint_key]
            lane.waiting.appendleft(one)
            self._count_waiting(lane, 1)
            self.called(one)

    def take(self, limit: int) -> list[Held]:
        """The next deliveries to be sent, in turn; each counts as a call in flight until `called`."""
        taken: list[Held] = []
        while self._turns and len(taken) < limit and self._calling < self._calls:
            tenant = self._turns.popleft()
            tenant.in_turn = False
            lane = tenant.turns.popleft()
            lane.in_turn = False
            if lane.waiting and lane.calling < self._calls_per_endpoint:
                taken.append(lane.waiting.popleft())
                self._count_waiting(lane, -1)
                lane.calling += 1
                tenant.calling += 1
                self._calling += 1
            self._give_turn(lane)
            self._give_tenant_turn(tenant)
        return taken

    def called(self, held: Held) -> None:
        """Its call is over, or won't be made."""
        lane = self._lanes[held.endpoint_key]
        lane.calling -= 1
        lane.tenant.calling -= 1
        self._calling -= 1
        self._give_turn(lane)
        self._give_tenant_turn(lane.tenant)
        self._forget_if_idle(lane)

    def empty(self, lane: Lane) -> list[Held]:
        """Take out all that waits in one lane."""
        given = list(lane.waiting)
        lane.waiting.clear()
        self._count_waiting(lane, -len(given))
        self._forget_if_idle(lane)
        return given

    def empty_all(self) -> list[Held]:
        """Take out all that waits."""
        return [one for lane in list(self._lanes.values()) for one in self.empty(lane)]

    def _room(self, lane: Lane) -> int:
        own = self._lane_rows - len(lane.waiting) - lane.promised
        free = self._lanes_rows - self._waiting - self._promised
        # As many as fit when each needs the tenant's rows, before it, to be fewer than its share of the free ones.
        return min(own, (_SHARE * (free + 1) - lane.tenant.rows) // (_SHARE + 1))

    def _takes_parked(self, lane: Lane) -> bool:
        return not lane.promised and len(lane.waiting) <= self._lane_rows // 2

    def _promise(self, lane: Lane, count: int) -> None:
        lane.promised += count
        lane.tenant.rows += count
        self._promised += count

    def _count_waiting(self, lane: Lane, count: int) -> None:
        lane.tenant.rows += count
        self._waiting += count

    def _give_turn(self, lane: Lane) -> None:
        if lane.waiting and not lane.in_turn and lane.calling < self._calls_per_endpoint:
            lane.in_turn = True
            lane.tenant.turns.append(lane)
            self._give_tenant_turn(lane.tenant)

    def _give_tenant_turn(self, tenant: Tenant) -> None:
        if tenant.turns and not tenant.in_turn and tenant.calling < self._calls_per_tenant:
            tenant.in_turn = True
            self._turns.append(tenant)

    def _forget_if_idle(self, lane: Lane) -> None:
        key = lane.endpoint.key
        if lane.is_idle and self._lanes.get(key) is lane:
            del self._lanes[key]
            lane.tenant.lanes -= 1
            if not lane.tenant.lanes:
                del self._tenants[key.tenant_id]
