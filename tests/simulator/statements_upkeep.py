"""What the leader asks of the model database and does there, and what workers do beside their turns."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from barnabas.contract.telling import OutboxKind
from barnabas.domain.gates import LineKind
from barnabas.domain.jobs import Command, Hook, JobState
from tests.simulator.statements_intake import IntakeStatements
from tests.simulator.tables import NO_ENDPOINT, Job, JobKey, Seat, Worker, row_type

_REWAKE_SECONDS = 30.0
_WAKE_MAX = 500

_QuestionRow = row_type(
    "renewed", "timer_at", "outbox_stale", "lease_over", "batch_old", "gate_open", "type_handled"
)  # fmt: skip
_RenewRow = row_type("job_ids", "fences", "revision", "has_backlog")
_BatchRow = row_type("batch_id", "claimed_at", "tenant_ids", "ref_ids", "endpoint_ids")
_HeldRow = row_type("tenant_id", "job_id", "fence", "attempt", "max_attempts", "losses", "hooks", "started_at")
_TimersRow = row_type("taken", "jobs_outbox", "deliveries_outbox", "lateness_seconds", "next_at")
_PageRow = row_type(
    "seen", "last_tenant", "last_job", "by_state", "oldest_ready", "suspects", "orphans"
)  # fmt: skip
_TenantRow = row_type("tenant_id")
_NameRow = row_type("id", "name")
_QueueRow = row_type("queue_id", "name", "shares")
_SharesRow = row_type("shares")
_TopicRow = row_type("topic", "cluster_id", "topic_id")

Rows = list[Any]


class UpkeepStatements(IntakeStatements):
    """Leases, timers, the outbox, gates and lines that wait, the reconciler, and dictionaries."""

    # Leases.

    def insert_worker(
        self, worker: UUID, service: str, _host: str, _pid: int, _slots: int, type_ids: Sequence[int],
        lease: timedelta, queue_ids: Sequence[int],
    ) -> Rows:  # fmt: skip
        self.tables.workers[worker] = Worker(worker, service, list(type_ids), list(queue_ids), self.now + lease)
        return []

    def renew_lease(self, worker: UUID, lease: timedelta) -> Rows:
        tables, row = self.tables, self.tables.workers.get(worker)
        if self.switches.lease_revived and row is None:
            row = Worker(worker, "worker", [], [0], self.now + lease)
        if row is None or row.lease_until <= self.now:
            self.lapsed.add(worker)
            if row is None or not self.switches.lease_revived:
                return []
        tables.workers[worker] = replace(row, lease_until=self.now + lease)
        asked = [(key, fence) for key, fence in tables.cancels.items() if key[0] == worker]
        for key, _ in asked:
            del tables.cancels[key]
        has_backlog = any(queue in row.queue_ids for _, queue in tables.backlogs)
        return [_RenewRow(([key[2] for key, _ in asked], [fence for _, fence in asked], 1, has_backlog))]

    def lock_worker(self, worker: UUID) -> Rows:
        return [(worker,)] if worker in self.tables.workers else []

    def delete_worker(self, worker: UUID) -> Rows:
        # Under a batch that its owner doesn't know the row stays, for the reaper: see test_findings.
        if not any(batch.worker == worker for batch in self.tables.batches.values()):
            self.tables.workers.pop(worker, None)
        return []

    def list_expired_workers(self) -> Rows:
        now = self.now
        return [
            (row.worker, row.service, row.lease_until, now, self.started_at)
            for row in sorted(self.tables.workers.values(), key=lambda row: row.lease_until)
            if row.lease_until < now
        ]

    def delete_expired_worker(self, worker: UUID) -> Rows:
        row = self.tables.workers.get(worker)
        if row is None or row.lease_until >= self.now:
            return []
        del self.tables.workers[worker]
        return [(worker,)]

    def list_lease_batches(self, worker: UUID) -> Rows:
        batches = sorted(self.tables.batches.items())
        return [
            _BatchRow((key, batch.claimed_at, batch.tenants, batch.refs, batch.endpoints))
            for key, batch in batches
            if batch.worker == worker
        ]

    def delete_lease_batches(self, batches: Iterable[UUID]) -> Rows:
        for batch in batches:
            self.tables.batches.pop(batch, None)
        return []

    def delete_lease_batches_of(self, worker: UUID) -> Rows:
        return self.delete_lease_batches([key for key, one in self.tables.batches.items() if one.worker == worker])

    def delete_cancel_requests_of(self, worker: UUID) -> Rows:
        for key in [key for key in self.tables.cancels if key[0] == worker]:
            del self.tables.cancels[key]
        return []

    def lock_gates(self, _tenants: Sequence[UUID]) -> Rows:
        return []

    def lock_order(self, _tenants: Sequence[UUID], _jobs: Sequence[UUID]) -> Rows:
        return []

    def find_held_jobs(self, worker: UUID, tenants: Sequence[UUID], jobs: Sequence[UUID]) -> Rows:
        found = [self.tables.jobs.get(key) for key in sorted(set(zip(tenants, jobs, strict=True)))]
        return [
            _HeldRow((
                job.tenant, job.job, job.fence, job.attempt, job.max_attempts, job.losses, job.hooks, job.started_at
            ))
            for job in found
            if job is not None and job.worker == worker and job.state is JobState.RUNNING
        ]  # fmt: skip

    def list_overdue_jobs(self, grace: timedelta, limit: int) -> Rows:
        now, overdue = self.now, []
        for batch in self.tables.batches.values():
            if batch.endpoints is not None or batch.claimed_at >= now - grace:
                continue
            for key in zip(batch.tenants, batch.refs, strict=True):
                job = self.tables.jobs.get(key)
                if job is None or job.worker != batch.worker or job.state is not JobState.RUNNING:
                    continue
                assert job.started_at is not None
                if job.started_at + timedelta(milliseconds=job.timeout_ms or 0) + grace < now:
                    overdue.append((job.worker, *key))
        return overdue[:limit]

    # The leader.

    def take_lead(self, role: str, holder: UUID, lease: timedelta) -> Rows:
        held = self.tables.leaders.get(role)
        if held is not None and held[0] != holder and held[1] >= self.now:
            return []
        self.tables.leaders[role] = (holder, self.now + lease)
        return [(True,)]

    def give_up_lead(self, role: str, holder: UUID) -> Rows:
        if (held := self.tables.leaders.get(role)) is not None and held[0] == holder:
            del self.tables.leaders[role]
        return []

    def ask_what_waits(
        self, age: timedelta, grace: timedelta, role: str, holder: UUID, lease: timedelta, renews: bool
    ) -> Rows:
        tables, now = self.tables, self.now
        held = tables.leaders.get(role)
        renewed = renews and held is not None and held[0] == holder
        if renewed:
            tables.leaders[role] = (holder, now + lease)
        oldest = tables.outbox[min(tables.outbox)].created_at if tables.outbox else now
        answer = (
            renewed,
            min((timer.poll_at for timer in tables.timers.values()), default=None),
            oldest < now - age,
            any(worker.lease_until < now for worker in tables.workers.values()),
            any(batch.claimed_at < now - grace for batch in tables.batches.values()),
            bool(self._open_gates()),
            bool(self._handled()),
        )
        return [_QuestionRow(answer)]

    def find_open_gates(self, limit: int) -> Rows:
        return [_TenantRow((tenant,)) for tenant in self._open_gates()[:limit]]

    def read_next_opening(self) -> Rows:
        now, opens = self.now_us, []
        for (tenant, kind, type_id), scope in self.tables.gates.items():
            log = scope.gate.log
            if scope.crowded and log is not None and self.seats_of(tenant, (kind, type_id)):
                opens += [time + log.window_us - now for time, _ in log.entries if time + log.window_us > now]
        return [(min(opens) / 1_000_000 if opens else None,)]

    def wake_handled_types(self, limit: int) -> Rows:
        rows = []
        for key in self._handled()[:limit]:
            self.tables.waiting[key] = replace(self.tables.waiting[key], woken_at=self.seconds)
            rows.append((*key, self.tables.jobs[key].fence))
        return rows

    def _open_gates(self) -> list[UUID]:
        """Tenants with a gate that has room for someone who waits and hasn't just been called."""
        tenants: list[UUID] = []
        if not self.tables.waiting:
            return tenants
        for key in sorted(self.tables.gates):
            if self.tables.gates[key].crowded:
                room = min(max(self.room_at(key), 0), _WAKE_MAX)
                if any(self._asleep(seat) for _, seat in self.seats_of(key[0], (key[1], key[2]))[:room]):
                    tenants.append(key[0])
        return sorted(set(tenants))

    def _handled(self) -> list[JobKey]:
        """Who met no handler, and whose type a live worker has announced."""
        live = [worker for worker in self.tables.workers.values() if worker.lease_until > self.now]
        announced = {(number, queue) for worker in live for number in worker.type_ids for queue in worker.queue_ids}
        return [
            key
            for key, seat in self.tables.waiting.items()
            if seat.line[0] is LineKind.UNHANDLED
            and self._asleep(seat)
            and (job := self.tables.jobs.get(key)) is not None
            and (job.type_id, job.queue_id) in announced
        ]

    def _asleep(self, seat: Seat) -> bool:
        return seat.woken_at is None or seat.woken_at < self.seconds - _REWAKE_SECONDS

    # Timers and the outbox.

    def take_due_timers(self, limit: int) -> Rows:
        tables, now = self.tables, self.now
        by_time = sorted((timer.poll_at, key) for key, timer in tables.timers.items() if timer.poll_at <= now)
        due = [(key, tables.timers[key]) for _, key in by_time[:limit]]
        queued: list[Job] = []
        late: list[float] = []
        pending: list[tuple[Any, int]] = []
        for key, timer in due:
            job = tables.jobs.get((key[0], key[1])) if timer.kind == 1 else None
            if job is not None and job.state in (JobState.SCHEDULED, JobState.RETRYING) and job.is_ready(now):
                assert job.due_at is not None
                late.append((now - job.due_at).total_seconds())
                queued.append(self.moved(job, Command.BECOME_DUE, ready_at=now))
                tables.jobs[key[0], key[1]] = queued[-1]
            delivery = tables.deliveries.get(key) if timer.kind == 2 else None
            if delivery is not None and delivery.state == 3 and delivery.due_at is not None and delivery.due_at <= now:
                tables.deliveries[key] = replace(delivery, state=0)
                pending.append((key, delivery.fence))
            del tables.timers[key]
        # A job that the claim has parked is called by its gate, not by the clock.
        jobs_outbox = self.tell_jobs(OutboxKind.READY_JOBS, [job for job in queued if not job.hooks & Hook.PARKED])
        deliveries_outbox = None
        if pending:
            keys = [key for key, _ in pending]
            deliveries_outbox = self.tell(
                OutboxKind.DELIVERIES, [key[0] for key in keys], [key[1] for key in keys],
                [fence for _, fence in pending], [key[2] for key in keys],
            )  # fmt: skip
        next_at = min((timer.poll_at for timer in tables.timers.values() if timer.poll_at > now), default=None)
        return [_TimersRow((len(due), jobs_outbox, deliveries_outbox, late, next_at))]

    def list_stale_outbox(self, age: timedelta, limit: int) -> Rows:
        rows = sorted(self.tables.outbox.items())
        stale = [outbox_id for outbox_id, row in rows if row.created_at < self.now - age]
        return self.read_outbox(stale[:limit])

    def read_outbox(self, ids: Iterable[int]) -> Rows:
        rows = ((outbox_id, self.tables.outbox.get(outbox_id)) for outbox_id in sorted(ids))
        return [
            (outbox_id, row.created_at, row.kind, row.tenants, row.refs, row.endpoints, row.fences)
            for outbox_id, row in rows
            if row is not None
        ]

    def read_oldest_outbox(self) -> Rows:
        outbox = self.tables.outbox
        return [(outbox[min(outbox)].created_at if outbox else self.now,)]

    def read_ready_jobs(self, tenants: Sequence[UUID], jobs: Sequence[UUID], fences: Sequence[int]) -> Rows:
        return [_record(job) for job in self._unmoved(tenants, jobs, fences) if job.is_ready(self.now)]

    def read_later_jobs(self, tenants: Sequence[UUID], jobs: Sequence[UUID], fences: Sequence[int]) -> Rows:
        return [
            (*_record(job), job.due_at)
            for job in self._unmoved(tenants, jobs, fences)
            if job.state in (JobState.SCHEDULED, JobState.RETRYING) and job.due_at is not None
        ]

    def _unmoved(self, tenants: Sequence[UUID], jobs: Sequence[UUID], fences: Sequence[int]) -> list[Job]:
        found = (self.tables.jobs.get(key) for key in zip(tenants, jobs, strict=True))
        return [job for job, fence in zip(found, fences, strict=True) if job is not None and job.fence == fence]

    # The reconciler.

    def inspect_open_jobs(
        self, after_tenant: UUID, after_job: UUID, limit: int, ready_before: datetime, overdue_before: datetime,
        started_before: datetime,
    ) -> Rows:  # fmt: skip
        tables = self.tables
        page = [job for key, job in sorted(tables.jobs.items()) if key > (after_tenant, after_job)][:limit]
        suspects, orphans = [], []
        for job in page:
            key = (job.tenant, job.job)
            if job.state is JobState.QUEUED:
                suspect = job.ready_at < ready_before and (not job.hooks & Hook.PARKED or key not in tables.waiting)
            elif job.state in (JobState.SCHEDULED, JobState.RETRYING):
                assert job.due_at is not None
                suspect = job.due_at < overdue_before and not job.hooks & Hook.PARKED
                suspect = suspect and (*key, NO_ENDPOINT) not in tables.timers
            else:
                suspect = False
            if suspect:
                since = job.ready_at if job.due_at is None else max(job.ready_at, job.due_at)
                suspects.append((*_record(job), since, int(job.state)))
            if job.state is JobState.RUNNING:
                assert job.started_at is not None
                if job.started_at < started_before and job.worker not in tables.workers:
                    orphans.append((job.worker, *key))
        last = (page[-1].tenant, page[-1].job) if page else (None, None)
        by_state = [sum(job.state == state for job in page) for state in range(5)]
        return [_PageRow((len(page), *last, by_state, [None] * 4, suspects, orphans))]

    def read_kafka_topics(self) -> Rows:
        return [_TopicRow((topic, *identity)) for topic, identity in sorted(self.tables.kafka_topics.items())]

    def write_kafka_topics(self, names: Sequence[str], clusters: Sequence[str], ids: Sequence[str]) -> Rows:
        self.tables.kafka_topics.update(zip(names, zip(clusters, ids, strict=True), strict=True))
        return []

    # What workers do beside their turns.

    def give_back_woken(self, tenants: Sequence[UUID], jobs: Sequence[UUID]) -> Rows:
        for key in zip(tenants, jobs, strict=True):
            if key in self.tables.waiting:
                self.tables.waiting[key] = replace(self.tables.waiting[key], woken_at=None)
        return []

    def park_backlog(self, tenants: Sequence[UUID], jobs: Sequence[UUID], queues: Sequence[int]) -> Rows:
        tables = self.tables
        tables.backlogs.update(dict.fromkeys(zip(tenants, queues, strict=True), True))
        for key in dict.fromkeys(zip(tenants, jobs, strict=True)):
            job = tables.jobs.get(key)
            if job is not None and job.is_ready(self.now) and not job.hooks & Hook.PARKED:
                self.park(key, (LineKind.BACKLOG, job.queue_id), job.priority)
                tables.jobs[key] = self.moved(job, Command.PARK, hooks=int(job.hooks | Hook.PARKED))
        return []

    def fetch_backlog(self, queues: Sequence[int], tenants: int, each: int) -> Rows:
        tables, rows = self.tables, []
        for tenant, queue in sorted(key for key in tables.backlogs if key[1] in queues)[:tenants]:
            asleep = [one for one in self.seats_of(tenant, (LineKind.BACKLOG, queue)) if self._asleep(one[1])]
            for key, seat in asleep[:each]:
                tables.waiting[key] = replace(seat, woken_at=self.seconds)
                if key in tables.jobs:
                    job = tables.jobs[key]
                    rows.append((*key, job.fence, job.type_id, job.priority, job.queue_id))
        if rows:
            return rows
        for tenant, queue in [key for key in tables.backlogs if key[1] in queues]:
            seats = self.seats_of(tenant, (LineKind.BACKLOG, queue))
            for key, seat in seats:
                is_left = key not in tables.jobs or not tables.jobs[key].hooks & Hook.PARKED
                if is_left and seat.woken_at is not None and seat.woken_at < self.seconds - 5.0:
                    del tables.waiting[key]
            if not self.seats_of(tenant, (LineKind.BACKLOG, queue)):
                del tables.backlogs[tenant, queue]
        return []

    # Dictionaries.

    def read_clock(self) -> Rows:
        return [(self.now,)]

    def find_type_ids(self, names: Iterable[str]) -> Rows:
        for name in sorted(names):
            self._types.setdefault(name, len(self._types) + 1)
        return [_NameRow((self._types[name], name)) for name in sorted(names)]

    def list_queues(self) -> Rows:
        return [_QueueRow((0, "default", [20, 30, 25, 25]))]

    def list_weights(self) -> Rows:
        return []

    def read_shares(self, _queue: int) -> Rows:
        return [_SharesRow(([20, 30, 25, 25],))]

    def type_name(self, number: int) -> str:
        """The type behind a number."""
        return next(name for name, known in self._types.items() if known == number)


def _record(job: Job) -> tuple[Any, ...]:
    return (job.tenant, job.job, job.fence, job.priority, job.queue_id, job.type_id)
