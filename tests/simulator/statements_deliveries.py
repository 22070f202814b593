"""Deliveries in the model database, and what people and webhooks read of ended jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from barnabas.contract.telling import OutboxKind
from barnabas.domain.deliveries import DELIVERY_TERMINAL, DeliveryState
from barnabas.postgres.database import LeaseOverError
from tests.simulator.statements_upkeep import Rows, UpkeepStatements
from tests.simulator.tables import Batch, DeadLetter, Delivery, DeliveryPlace, Endpoint, row_type

_EndedRow = row_type("event_id", "tenant_id", "job_id", "type", "state", "attempt", "fence", "reason")
_EndpointRow = row_type(
    "tenant_id", "endpoint_id", "url", "event_types", "retry_schedule_seconds", "headers", "disabled_at", "deleted_at",
    "secrets",
)  # fmt: skip
_JobRow = row_type(
    "tenant_id", "job_id", "type", "queue", "priority", "created_at", "run_at", "redrive_of", "ordering_key",
    "metadata", "state", "attempt", "losses", "fence", "max_attempts", "started_at", "finished_at", "event_id",
    "result", "error", "reason", "due_at", "cancel_requested", "percent", "message",
)  # fmt: skip
_ReleasedRow = row_type("released", "outbox")
_ParkedRow = row_type("tenant_id", "endpoint_id", "is_ours")
_UntoldRow = row_type(
    "tenant_id", "event_id", "endpoint_id", "fence", "state", "due_at", "delivery_id", "job_id", "attempt",
    "last_status", "error", "finished_at", "reason",
)  # fmt: skip
_IdRow = row_type("job_id")
_TenantRow = row_type("tenant_id")
_RedriveRow = row_type("answer", "outbox", "event_id", "endpoint_id", "fence")

_PENDING, _PARKED, _RUNNING, _RETRYING, _SUCCEEDED, _FAILED, _CANCELLED = range(7)


class ModelStatements(UpkeepStatements):
    """All statements together."""

    def open_deliveries(
        self, worker: UUID, batch: UUID, tenants: Sequence[UUID], events: Sequence[UUID], endpoints: Sequence[UUID],
        deliveries: Sequence[UUID], jobs: Sequence[UUID], states: Sequence[int], errors: Sequence[str | None],
    ) -> Rows:  # fmt: skip
        self._check_lease(worker)
        opened: list[DeliveryPlace] = []
        columns = zip(zip(tenants, events, endpoints, strict=True), deliveries, jobs, states, errors, strict=True)
        for key, delivery, job, state, error in columns:
            if key in self.tables.deliveries and not self.switches.events_repeated:
                continue
            running = int(state == _RUNNING)
            finished_at = self.now if state == _CANCELLED else None
            self.tables.deliveries[key] = Delivery(
                delivery, job, worker, int(state), running, running, finished_at=finished_at, error=error
            )
            opened.append(key)
        self._hold(worker, batch, [key for key in opened if self.tables.deliveries[key].state == _RUNNING])
        return [(*key, self.tables.deliveries[key].state) for key in opened]

    def claim_deliveries(
        self, worker: UUID, batch: UUID, tenants: Sequence[UUID], events: Sequence[UUID], endpoints: Sequence[UUID],
        actions: Sequence[int], errors: Sequence[str | None],
    ) -> Rows:  # fmt: skip
        self._check_lease(worker)
        rows: Rows = []
        claimed: list[DeliveryPlace] = []
        for key, action, error in zip(zip(tenants, events, endpoints, strict=True), actions, errors, strict=True):
            d = self.tables.deliveries.get(key)
            if d is None or d.state not in (_PENDING, _PARKED, _RETRYING):
                continue
            if d.state == _RETRYING and d.due_at is not None and d.due_at > self.now and action != 3:
                rows.append((3, *key, d.job, d.fence, d.attempt, d.due_at))
                continue
            moved = self._taken(d, worker, {1: _RUNNING, 2: _PARKED}.get(action, _CANCELLED), error)
            self.tables.deliveries[key] = moved
            if action == 1:
                claimed.append(key)
            rows.append(({1: 1, 2: 2}.get(action, 4), *key, moved.job, moved.fence, moved.attempt, None))
        self._hold(worker, batch, claimed)
        return rows

    def take_parked_deliveries(
        self, worker: UUID, batch: UUID, tenants: Sequence[UUID], endpoints: Sequence[UUID], rooms: Sequence[int],
        errors: Sequence[str | None],
    ) -> Rows:  # fmt: skip
        self._check_lease(worker)
        rows: Rows = []
        taken: list[DeliveryPlace] = []
        for tenant, endpoint, room, error in zip(tenants, endpoints, rooms, errors, strict=True):
            parked = sorted(
                key for key, d in self.tables.deliveries.items()
                if key[0] == tenant and key[2] == endpoint and d.state == _PARKED
            )  # fmt: skip
            for key in parked[:room]:
                d = self._taken(self.tables.deliveries[key], worker, _RUNNING if error is None else _CANCELLED, error)
                self.tables.deliveries[key] = d
                if error is None:
                    taken.append(key)
                rows.append((*key, d.job, d.fence, d.attempt, d.state))
        self._hold(worker, batch, taken)
        return rows

    def finish_deliveries(
        self, worker: UUID, tenants: Sequence[UUID], events: Sequence[UUID], endpoints: Sequence[UUID],
        fences: Sequence[int], states: Sequence[int], due: Sequence[datetime | None], statuses: Sequence[int | None],
        errors: Sequence[str | None], started: Sequence[datetime | None], _durations: Sequence[int | None],
        _bodies: Sequence[bytes | None], reasons: Sequence[str | None], disable: Sequence[bool],
        batches: Sequence[UUID],
    ) -> Rows:  # fmt: skip
        tables = self.tables
        keys = list(zip(tenants, events, endpoints, strict=True))
        columns = zip(keys, fences, states, due, statuses, errors, started, reasons, disable, strict=True)
        moved: list[DeliveryPlace] = []
        told: list[DeliveryPlace] = []
        for key, fence, state, due_at, status, error, started_at, reason, gone in columns:
            d = tables.deliveries.get(key)
            if d is None or not self._holds(d, worker, fence):
                continue
            no_call = started_at is None
            d = tables.deliveries[key] = replace(
                d,
                state=int(state),
                due_at=due_at,
                attempt=d.attempt - no_call,
                finished_at=self.now if state in DELIVERY_TERMINAL else None,
                last_status=d.last_status if no_call else status,
                error=error,
            )
            moved.append(key)
            if state == _RETRYING:
                assert due_at is not None
                self.set_timer(*key, kind=2, fence=d.fence, due_at=due_at, carried=True)
            if state == _FAILED:
                tables.dead[key[0], 2, d.delivery] = DeadLetter(reason or "")
            if gone:
                self._disable((key[0], key[2]))
            if state == _FAILED or (due_at is not None and self.is_carried(due_at)):
                told.append(key)
        outbox = self._tell_deliveries(told)
        for batch in batches:
            tables.batches.pop(batch, None)
        rows: Rows = [(key[1], key[2], outbox) for key in moved]
        for key, fence, state, due_at in zip(keys, fences, states, due, strict=True):
            d = tables.deliveries.get(key)
            is_held = d is not None and d.worker == worker and d.fence == fence
            if len(moved) < len(keys) and d is not None and is_held and d.state == state and d.due_at == due_at:
                rows.append((key[1], key[2], None))
        return rows

    def release_deliveries(
        self, worker: UUID, tenants: Sequence[UUID], events: Sequence[UUID], endpoints: Sequence[UUID],
        fences: Sequence[int | None], batches: Sequence[UUID],
    ) -> Rows:  # fmt: skip
        released: list[DeliveryPlace] = []
        for key, fence in zip(zip(tenants, events, endpoints, strict=True), fences, strict=True):
            d = self.tables.deliveries.get(key)
            if d is None or not self._holds(d, worker, d.fence if fence is None else fence):
                continue
            self.tables.deliveries[key] = replace(d, state=_PENDING, worker=None, due_at=None, attempt=d.attempt - 1)
            released.append(key)
        outbox = self._tell_deliveries(released)
        for batch in batches:
            self.tables.batches.pop(batch, None)
        return [_ReleasedRow(([key[1] for key in released] or None, outbox))]

    def redrive_delivery(self, tenant: UUID, delivery: UUID, due_at: datetime | None) -> Rows:
        tables = self.tables
        found = ((key, d) for key, d in tables.deliveries.items() if key[0] == tenant and d.delivery == delivery)
        key, d = next(found, (None, None))
        if key is None or d is None:
            return [_RedriveRow(("absent", None, None, None, None))]
        endpoint = tables.endpoints.get((tenant, key[2]))
        if endpoint is None or endpoint.deleted_at or endpoint.disabled_at:
            return [_RedriveRow(("unwanted", None, key[1], key[2], d.fence))]
        if tables.dead.pop((tenant, 2, delivery), None) is None:
            return [_RedriveRow(("closed", None, key[1], key[2], d.fence))]
        due_at = due_at if due_at is not None and due_at > self.now else None
        outbox = None
        if d.state == _FAILED:
            state = _PENDING if due_at is None else _RETRYING
            tables.deliveries[key] = replace(d, state=state, due_at=due_at, finished_at=None, worker=None)
        if due_at is not None:
            self.set_timer(*key, kind=2, fence=d.fence, due_at=due_at, carried=False)
        else:
            outbox = self._tell_deliveries([key])
        return [_RedriveRow(("redriven", outbox, key[1], key[2], d.fence))]

    def find_parked_endpoints(self, tenant: UUID, endpoint: UUID, limit: int, worker: UUID) -> Rows:
        oldest: dict[tuple[UUID, UUID], tuple[UUID, UUID | None]] = {}
        for key, d in sorted(self.tables.deliveries.items()):
            if d.state == _PARKED and (key[0], key[2]) > (tenant, endpoint):
                oldest.setdefault((key[0], key[2]), (key[1], d.worker))
        rows = []
        for place, (_, holder) in sorted(oldest.items())[:limit]:
            row = None if holder is None else self.tables.workers.get(holder)
            is_ours = holder == worker or row is None or row.lease_until <= self.now
            rows.append(_ParkedRow((*place, is_ours)))
        return rows

    def read_untold_deliveries(
        self, tenants: Sequence[UUID], events: Sequence[UUID], endpoints: Sequence[UUID], fences: Sequence[int]
    ) -> Rows:
        rows = []
        for key, fence in zip(zip(tenants, events, endpoints, strict=True), fences, strict=True):
            d = self.tables.deliveries.get(key)
            if d is None or d.fence != fence:
                continue
            letter = self.tables.dead.get((key[0], 2, d.delivery)) if d.state == _FAILED else None
            if d.state in (_PENDING, _RETRYING) or letter is not None:
                reason = None if letter is None else letter.reason
                rows.append(
                    _UntoldRow((
                        *key, d.fence, d.state, d.due_at, d.delivery, d.job, d.attempt, d.last_status, d.error,
                        d.finished_at, reason,
                    ))
                )  # fmt: skip
        return rows

    def list_pending_deliveries(self, limit: int) -> Rows:
        pending = sorted((key[1], key, d.fence) for key, d in self.tables.deliveries.items() if d.state == _PENDING)
        return [(*key, fence) for _, key, fence in pending[:limit]]

    def list_told_tenants(self) -> Rows:
        open_ = {one.tenant for one in self.tables.endpoints.values() if not (one.deleted_at or one.disabled_at)}
        return [_TenantRow((tenant,)) for tenant in sorted(open_)]

    def list_undelivered_jobs(self, tenant: UUID, after: UUID, since_event: UUID, limit: int) -> Rows:
        delivered = {(key[0], key[1]) for key in self.tables.deliveries}
        found = sorted(
            key[1]
            for key, results in self.tables.results.items()
            if key[0] == tenant and key[1] > after and results[0].event >= since_event
            and (tenant, results[0].event) not in delivered
        )  # fmt: skip
        return [_IdRow((job,)) for job in found[:limit]]

    # Endpoints, and ended jobs as they are told.

    def find_endpoints(self, tenants: Sequence[UUID]) -> Rows:
        return [
            self._endpoint(one)
            for _, one in sorted(self.tables.endpoints.items())
            if one.tenant in tenants and one.deleted_at is None
        ]

    def read_endpoints(self, tenants: Sequence[UUID], endpoints: Sequence[UUID]) -> Rows:
        found = (self.tables.endpoints.get(key) for key in zip(tenants, endpoints, strict=True))
        return [self._endpoint(one) for one in found if one is not None]

    def read_ended_jobs(self, tenants: Sequence[UUID], jobs: Sequence[UUID]) -> Rows:
        return [
            _EndedRow((
                one.event, one.tenant, one.job, self.type_name(one.type_id), one.state, one.attempt, one.fence,
                one.reason,
            ))
            for key in zip(tenants, jobs, strict=True)
            for one in self.tables.results.get(key, ())
        ]  # fmt: skip

    def read_jobs(self, tenants: Sequence[UUID], jobs: Sequence[UUID]) -> Rows:
        rows = []
        for key in zip(tenants, jobs, strict=True):
            sent = self.tables.payloads.get(key)
            ended = self.tables.results.get(key, (None,))[0]
            one = ended or self.tables.jobs.get(key)
            if sent is None or one is None:
                continue
            end = (None,) * 5 if ended is None else (
                ended.finished_at, ended.event, ended.result, ended.error, ended.reason
            )  # fmt: skip
            rows.append(
                _JobRow((
                    *key, self.type_name(sent.type_id), "default", sent.priority, sent.created_at, sent.run_at,
                    sent.redrive_of, sent.ordering_key, sent.metadata, one.state, one.attempt, one.losses, one.fence,
                    sent.max_attempts, one.started_at, *end, None, False, None, None,
                ))
            )  # fmt: skip
        return rows

    def _check_lease(self, worker: UUID) -> None:
        if not self.holds_lease(worker):
            raise LeaseOverError

    def _holds(self, d: Delivery, worker: UUID, fence: int) -> bool:
        return d.state == _RUNNING and (self.switches.fence_unchecked or (d.worker == worker and d.fence == fence))

    def _hold(self, worker: UUID, batch: UUID, keys: Sequence[DeliveryPlace]) -> None:
        if keys:
            tenants, events, endpoints = zip(*keys, strict=True)
            self.tables.batches[batch] = Batch(batch, worker, self.now, tenants, events, endpoints)

    def _taken(self, d: Delivery, worker: UUID, state: int, error: str | None) -> Delivery:
        claimed = int(state == _RUNNING)
        return replace(
            d,
            state=state,
            worker=worker,
            fence=d.fence + claimed,
            attempt=d.attempt + claimed,
            due_at=None,
            finished_at=self.now if state == _CANCELLED else None,
            error=error or d.error,
        )

    def _tell_deliveries(self, keys: Sequence[DeliveryPlace]) -> int | None:
        if not keys:
            return None
        fences = [self.tables.deliveries[key].fence for key in keys]
        tenants, events, endpoints = zip(*keys, strict=True)
        return self.tell(OutboxKind.DELIVERIES, tenants, events, fences, endpoints)

    def _disable(self, key: tuple[UUID, UUID]) -> None:
        endpoint = self.tables.endpoints[key]
        if endpoint.disabled_at is None:
            self.tables.endpoints[key] = replace(endpoint, disabled_at=self.now)

    def _endpoint(self, one: Endpoint) -> Any:
        return _EndpointRow((
            one.tenant, one.endpoint, "https://receiver.example/", one.event_types, one.schedule, None,
            one.disabled_at, one.deleted_at, ["secret"],
        ))  # fmt: skip


assert [state.value for state in DeliveryState] == list(range(7))
