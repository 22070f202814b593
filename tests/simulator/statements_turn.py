"""`turn_jobs` in the model: who ends, who goes back, who is woken and who starts, in the order of the real function."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from barnabas.contract.telling import OutboxKind
from barnabas.domain.attempts import AttemptKind
from barnabas.domain.gates import TENANT_LINE, LineKind, admit
from barnabas.domain.jobs import Command, Hook, JobState
from barnabas.postgres.database import LeaseOverError
from barnabas.postgres.turns import Verdict
from tests.simulator.statements import Statements
from tests.simulator.tables import NO_ENDPOINT, Attempt, Batch, DeadLetter, Job, JobKey, Result, row_type

_TurnRow = row_type(
    "verdict", "tenant_id", "job_id", "fence", "attempt", "max_attempts", "losses", "hooks", "type_id", "priority",
    "queue_id", "timeout_ms", "ready_at", "started_at", "payload", "metadata", "retry", "trace", "ids", "outbox",
)  # fmt: skip
_TOLD, _KEPT, _ENDED, _HAD_ENDED, _RELEASED, _READY, _LATER, _CANCEL_WANTED = 6, 7, 10, 11, 12, 13, 14, 15
_NOTHING = (None,) * 17
_COMMANDS = {
    JobState.SUCCEEDED: Command.SUCCEED,
    JobState.FAILED: Command.FAIL,
    JobState.CANCELLED: Command.CANCEL,
}
_LEAVING = {
    AttemptKind.ATTEMPT: Command.RETRY,
    AttemptKind.LOSS: Command.LOSE,
    AttemptKind.HAND_BACK: Command.HAND_BACK,
    AttemptKind.SNOOZE: Command.SNOOZE,
}


class TurnStatements(Statements):
    """The only way into a worker's hands and out of them."""

    def turn_jobs(
        self,
        worker: UUID,
        told: Sequence[int],
        ended_tenants: Sequence[UUID],
        ended_jobs: Sequence[UUID],
        fences: Sequence[int],
        states: Sequence[JobState],
        results: Sequence[bytes | None],
        errors: Sequence[bytes | None],
        reasons: Sequence[str | None],
        events: Sequence[UUID],
        ordered: bool,
        _hold: bool,
        left_tenants: Sequence[UUID],
        left_jobs: Sequence[UUID],
        left_fences: Sequence[int],
        left_kinds: Sequence[AttemptKind],
        left_due: Sequence[datetime | None],
        _left_errors: Sequence[bytes | None],
        done: Sequence[UUID],
        wake: Sequence[UUID],
        spare: int,
        keep: bool,
        batch: UUID | None,
        tenants: Sequence[UUID],
        jobs: Sequence[UUID],
        types: Sequence[int],
        timeouts_ms: Sequence[int],
    ) -> list[Any]:
        tables = self.tables
        if batch is not None and not self.holds_lease(worker):
            raise LeaseOverError
        self.delete_outbox(told)
        asked = Counter(tenants)
        touched = sorted({*tenants, *ended_tenants, *left_tenants, *wake})
        scopes = [key for tenant in touched for key in self.scopes_of(tenant)]
        typed = any(kind is LineKind.TYPE for _, kind, _ in scopes)
        crowded = sorted({key[0] for key in scopes if tables.gates[key].crowded})
        tight = {key[0] for key in scopes if tables.gates[key].crowded or self._too_small(key, asked[key[0]])}
        rows: list[Any] = []

        if ended_jobs:
            ends = list(zip(ended_tenants, ended_jobs, strict=True))
            told_of = (_padded(column, ends) for column in (results, errors, reasons))
            columns = zip(fences, states, *told_of, events, strict=True)
            closed, wanted = self._finish(worker, dict(zip(ends, columns, strict=True)))
            outbox = self.tell_jobs(OutboxKind.ENDED_JOBS, closed)
            if ordered and closed:
                dead = [job.job for job in closed if (job.tenant, 1, job.job) in tables.dead]
                ready = self.pass_order([(job.tenant, job.job) for job in closed], dead)
                next_outbox = self.tell_jobs(OutboxKind.READY_JOBS, ready)
                rows += [_woken(_TOLD, job, next_outbox) for job in ready]
            if closed:
                rows.append(_TurnRow((_ENDED, *_NOTHING, [job.job for job in closed], outbox)))
            already = self._ended_before(worker, ends, fences, {job.job for job in closed})
            if already:
                rows.append(_TurnRow((_HAD_ENDED, *_NOTHING, already, None)))
            if wanted:
                rows.append(_TurnRow((_CANCEL_WANTED, *_NOTHING, wanted, None)))

        if left_jobs:
            left = zip(left_tenants, left_jobs, strict=True)
            going = zip(left_fences, left_kinds, left_due, strict=True)
            rows += self._release(worker, dict(zip(left, going, strict=True)))

        for batch_id in done:
            tables.batches.pop(batch_id, None)

        ask = list(zip(tenants, jobs, strict=True))
        if crowded and (ended_jobs or left_jobs or wake):
            if typed:
                for tenant in crowded:
                    self.make_way(tenant)
            untold: list[Job] = []
            for job in self.wake_waiting(crowded):
                if job.type_id in types and spare > 0:
                    spare -= 1
                    ask.append((job.tenant, job.job))
                elif job.type_id in types and keep:
                    rows.append(_woken(_KEPT, job, None))
                else:
                    untold.append(job)
            outbox = self.tell_jobs(OutboxKind.READY_JOBS, untold)
            rows += [_woken(_TOLD, job, outbox) for job in untold]

        if batch is not None and ask:
            rows += self._claim(worker, batch, ask, tight, dict(zip(types, timeouts_ms, strict=True)))
        return rows

    def holds_lease(self, worker: UUID) -> bool:
        """Whether a claim may be made under this id."""
        row = self.tables.workers.get(worker)
        if row is not None and row.lease_until > self.now and worker not in self.lapsed:
            return True
        self.lapsed.add(worker)
        return self.switches.lease_revived

    def _too_small(self, key: tuple[UUID, LineKind, int], asked: int) -> bool:
        room = self.tables.gates[key].gate.room(self.now_us)
        return room is not None and room < asked

    def _is_held(self, job: Job | None, worker: UUID, fence: int) -> bool:
        if job is None or job.state is not JobState.RUNNING:
            return False
        return self.switches.fence_unchecked or (job.fence == fence and job.worker == worker)

    def _finish(self, worker: UUID, done: dict[JobKey, tuple[Any, ...]]) -> tuple[list[Job], list[UUID]]:
        """End those that the worker still holds, but for failures of jobs that somebody wants cancelled."""
        tables = self.tables
        closed: list[Job] = []
        wanted: list[UUID] = []
        for key, (fence, state, result, error, reason, event) in done.items():
            job = tables.jobs.get(key)
            if not self._is_held(job, worker, fence):
                continue
            assert job is not None
            if state == JobState.FAILED and job.hooks & Hook.CANCEL_REQUESTED:
                wanted.append(job.job)
                continue
            ended = self.moved(job, _COMMANDS[JobState(state)])
            del tables.jobs[key]
            closed.append(job)
            is_lost = reason == "worker_lost"
            self.keep_result(
                Result(
                    job.tenant, job.job, event, worker, job.started_at, _minted_at(event), job.fence, job.type_id,
                    ended.state, job.priority, job.queue_id, job.attempt - is_lost, job.losses + is_lost, reason,
                    result, error,
                )
            )  # fmt: skip
            if reason is not None:
                tables.dead[job.tenant, 1, job.job] = DeadLetter(reason)
            tables.cancels.pop((worker, job.tenant, job.job), None)
            self._give_places_back(job)
        return closed, wanted

    def keep_result(self, result: Result) -> None:
        """A job has ended; that it had before is for the checker to say."""
        key = (result.tenant, result.job)
        self.tables.results[key] = (*self.tables.results.get(key, ()), result)

    def _ended_before(
        self, worker: UUID, ends: Sequence[JobKey], fences: Sequence[int], closed: set[UUID]
    ) -> list[UUID]:
        return [
            key[1]
            for key, fence in zip(ends, fences, strict=True)
            if key[1] not in closed
            and any(one.fence == fence and one.worker == worker for one in self.tables.results.get(key, ()))
        ]

    def _release(self, worker: UUID, going: dict[JobKey, tuple[Any, ...]]) -> list[Any]:
        """Let go of those that the worker still holds and that nobody wants cancelled."""
        tables, released, wanted = self.tables, [], []
        for key, (fence, kind, due_at) in going.items():
            job = tables.jobs.get(key)
            if not self._is_held(job, worker, fence):
                continue
            assert job is not None
            if job.hooks & Hook.CANCEL_REQUESTED:
                wanted.append(job.job)
                continue
            kind = AttemptKind(kind)
            hooks = job.hooks & ~(Hook.LIMITED | Hook.LIMITED_TYPE) | (Hook.ISOLATED if kind is AttemptKind.LOSS else 0)
            freed = self.moved(
                job,
                _LEAVING[kind],
                due_at=due_at,
                ready_at=self.now if due_at is None else due_at,
                worker=None,
                attempt=job.attempt if kind is AttemptKind.ATTEMPT else job.attempt - 1,
                losses=job.losses + (kind is AttemptKind.LOSS),
                hooks=int(hooks),
            )
            tables.jobs[key] = freed
            released.append(freed)
            attempt = Attempt(*key, job.attempt, job.fence, kind, job.started_at, self.now, due_at)
            tables.attempts[(*key, job.fence, len(tables.attempts))] = attempt
            if due_at is not None:
                self.set_timer(*key, NO_ENDPOINT, kind=1, fence=job.fence, due_at=due_at, carried=True)
            self._give_places_back(job)
            line = self.line_with(key)
            if line is not None:
                line.retry(key[1])
        ready = self.tell_jobs(OutboxKind.READY_JOBS, [job for job in released if job.due_at is None])
        later = self.tell_jobs(
            OutboxKind.LATER_JOBS, [job for job in released if job.due_at is not None and self.is_carried(job.due_at)]
        )
        lines = ((_RELEASED, [job.job for job in released], None), (_READY, None, ready), (_LATER, None, later),
                 (_CANCEL_WANTED, wanted, None))  # fmt: skip
        return [_TurnRow((verdict, *_NOTHING, ids, outbox)) for verdict, ids, outbox in lines if ids or outbox]

    def _give_places_back(self, job: Job) -> None:
        for hook, line in ((Hook.LIMITED, TENANT_LINE), (Hook.LIMITED_TYPE, (LineKind.TYPE, job.type_id))):
            key = (job.tenant, *line)
            if job.hooks & hook and key in self.tables.gates:
                scope = self.tables.gates[key]
                self.tables.gates[key] = replace(scope, gate=scope.gate.end(1))

    def _claim(
        self, worker: UUID, batch: UUID, ask: Sequence[JobKey], tight: set[UUID], types: dict[int, int]
    ) -> list[Any]:
        """A durable verdict for each; one without a row in the answer is stale."""
        tables, now, rows = self.tables, self.now, []
        ask = list(dict.fromkeys(ask))
        run = [key for key in ask if key[0] not in tight or self.switches.gates_open]
        parked: list[UUID] = []
        if not self.switches.gates_open:
            for tenant in sorted(tight):
                started, waits = self._admit(tenant, [key for key in ask if key[0] == tenant], types)
                run += started
                parked += waits
        if parked:
            rows.append(_TurnRow((Verdict.PARKED, *_NOTHING, parked, None)))
        if worker in self.lapsed:
            self.violations.append(f"jobs were claimed under {worker}, whose lease was over before")
        claimed: list[Job] = []
        for key in sorted(run):
            job = tables.jobs.get(key)
            if job is None or job.type_id not in types or not self._is_ready(job):
                continue
            claimed.append(self._start(job, worker, types[job.type_id]))
            tables.waiting.pop(key, None)
        self._count_starts(claimed)
        if claimed:
            owners, refs = [job.tenant for job in claimed], [job.job for job in claimed]
            tables.batches[batch] = Batch(batch, worker, now, owners, refs, None)
        for job in claimed:
            sent = tables.payloads[job.tenant, job.job]
            rows.append(
                _TurnRow((
                    Verdict.CLAIMED, job.tenant, job.job, job.fence, job.attempt, job.max_attempts, job.losses,
                    job.hooks, job.type_id, job.priority, job.queue_id, job.timeout_ms, job.ready_at, job.started_at,
                    sent.payload, sent.metadata, sent.retry, None, None, None,
                ))
            )  # fmt: skip
        unhandled, early = [], []
        for key in ask:
            job = tables.jobs.get(key)
            if job is None or job.state is JobState.RUNNING or key[1] in parked:
                continue
            if job.is_ready(now) and job.type_id not in types:
                self.park(key, (LineKind.UNHANDLED, job.type_id), job.priority)
                tables.jobs[key] = replace(job, hooks=job.hooks | Hook.PARKED)
                unhandled.append(key[1])
            elif job.state in (JobState.SCHEDULED, JobState.RETRYING) and not job.is_ready(now):
                early.append(key[1])
        answers = ((Verdict.UNHANDLED, unhandled), (Verdict.EARLY, early))
        return rows + [_TurnRow((verdict, *_NOTHING, ids, None)) for verdict, ids in answers if ids]

    def _is_ready(self, job: Job) -> bool:
        if self.switches.early_claims and job.state in (JobState.SCHEDULED, JobState.RETRYING):
            return True
        return job.is_ready(self.now)

    def _start(self, job: Job, worker: UUID, timeout_ms: int) -> Job:
        tables, key = self.tables, (job.tenant, job.job)
        hooks = job.hooks & ~Hook.PARKED
        for hook, line in ((Hook.LIMITED, TENANT_LINE), (Hook.LIMITED_TYPE, (LineKind.TYPE, job.type_id))):
            scope = tables.gates.get((job.tenant, *line))
            if scope is not None and scope.gate.allowed is not None:
                hooks |= hook
        line_of_key = self.line_with(key)
        if line_of_key is not None and not line_of_key.start(job.job) and not self.switches.order_unheld:
            self.violations.append(f"job {job.job} was claimed and didn't have the turn of its ordering key")
        started = self.moved(
            job,
            Command.CLAIM,
            fence=job.fence + 1,
            attempt=job.attempt + 1,
            worker=worker,
            started_at=self.now,
            hooks=int(hooks),
            timeout_ms=timeout_ms if job.timeout_ms is None else job.timeout_ms,
        )
        tables.jobs[key] = started
        return started

    def _count_starts(self, claimed: Sequence[Job]) -> None:
        starts = Counter((job.tenant, *TENANT_LINE) for job in claimed)
        starts.update((job.tenant, LineKind.TYPE, job.type_id) for job in claimed)
        for key, count in starts.items():
            scope = self.tables.gates.get(key)
            if scope is None:
                continue
            gate = scope.gate.start(self.now_us, count)
            self.tables.gates[key] = replace(scope, gate=gate)
            if gate.allowed is not None and gate.used > gate.allowed:
                self.violations.append(f"{gate.used} jobs run at the gate {key[1:]} that allows {gate.allowed}")
            if gate.log is not None and gate.log.counting(self.now_us) > gate.log.starts_allowed:
                self.violations.append(f"more starts than {gate.log.starts_allowed} in a window at the gate {key[1:]}")

    def _admit(self, tenant: UUID, asked: Sequence[JobKey], types: dict[int, int]) -> tuple[list[JobKey], list[UUID]]:
        """Whom the tenant's gates let start, and who was parked, each where it wasn't let through."""
        tables = self.tables
        able = [
            key for key in asked
            if (job := tables.jobs.get(key)) is not None and job.type_id in types and self._is_ready(job)
        ]  # fmt: skip
        scope = tables.gates.get((tenant, *TENANT_LINE))
        verdict = admit(
            [self.asking(key, tables.jobs[key]) for key in able],
            tenant_gate=None if scope is None else scope.gate,
            type_gates=self.type_gates(tenant),
            heads=self.heads_of(tenant),
            at=self.now_us,
        )
        for key in able:
            if (line := verdict.waits.get(key)) is not None:
                job = tables.jobs[key]
                self.park(key, line, job.priority)
                command = Command.PARK
                tables.jobs[key] = self.moved(job, command, hooks=int(job.hooks | Hook.PARKED))
        return verdict.started, [key[1] for key in verdict.waits]


def _padded(column: Sequence[Any], rows: Sequence[Any]) -> Sequence[Any]:
    return column or (None,) * len(rows)


def _woken(verdict: int, job: Job, outbox: int | None) -> Any:
    head = (verdict, job.tenant, job.job, job.fence, None, None, None, None, job.type_id, job.priority, job.queue_id)
    return _TurnRow((*head, *(None,) * 8, outbox))


def _minted_at(event: UUID) -> datetime:
    return datetime.fromtimestamp((event.int >> 80) / 1_000, UTC)
