"""How jobs come into the model database, and out of it without a worker: submissions, cancels, redrives."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from barnabas.contract.telling import OutboxKind
from barnabas.domain.gates import LineKind
from barnabas.domain.ids import RANDOM_BYTES, uuid7
from barnabas.domain.jobs import Command, Hook, JobState
from tests.simulator.statements_turn import TurnStatements
from tests.simulator.tables import NO_ENDPOINT, Holder, Job, Payload, Result, row_type

_BLOCKED, _ORDERED, _PARKED, _REFUSED = 1, 2, 128, 1024
_ACCEPTED = ("outbox", "marks", "tenants", "allowed", "windows", "rooms", "seconds")
_AcceptedRow = row_type(*_ACCEPTED)
_KeyedRow = row_type(*_ACCEPTED, "holders", "fingerprints")
_OffsetRow = row_type("partition", "next_offset")
_CancelRow = row_type(
    "answer", "event_id", "outbox", "next_job", "next_fence", "next_type", "next_priority", "next_queue", "next_outbox"
)
_RedriveRow = row_type("answer", "job_id", "outbox", "type_id", "priority", "queue_id")


class IntakeStatements(TurnStatements):
    """`accept_jobs`, `accept_keyed_jobs`, `move_intake_offsets`, `cancel_job`, `redrive_job`."""

    def accept_jobs(self, *columns: Any) -> list[Any]:
        *jobs, told = columns
        self.delete_outbox(told)
        return [_AcceptedRow(self._accept(_rows(jobs)))]

    def accept_keyed_jobs(
        self, keys: Sequence[str | None], fingerprints: Sequence[bytes | None], *columns: Any
    ) -> list[Any]:
        tables, rows, won = self.tables, _rows(columns), []
        for row, key, fingerprint in zip(rows, keys, fingerprints, strict=True):
            place = (row[0], key or "")
            if key is None or self.switches.keys_forgotten:
                won.append(row)
            elif place not in tables.keys:
                tables.keys[place] = Holder(row[1], fingerprint or b"")
                won.append(row)
        accepted = self._accept(won) if won else (None,) * len(_ACCEPTED)
        marks_of = {row[1]: mark for row, mark in zip(won, accepted[1] or [None] * len(won), strict=True)}
        marks: list[int | None] = []
        for row, key in zip(rows, keys, strict=True):
            holder = tables.keys.get((row[0], key or ""))
            # The key of a refused job of this very call is nobody's: its others are refused with it.
            stands_for = row[1] if holder is None else holder.job
            marks.append(_REFUSED if marks_of.get(stands_for) == _REFUSED else marks_of.get(row[1]))
        for row, key, mark in zip(rows, keys, marks, strict=True):
            if mark == _REFUSED and key is not None:
                tables.keys.pop((row[0], key), None)
        holders: list[UUID | None] = []
        prints: list[bytes | None] = []
        for row, key, fingerprint in zip(rows, keys, fingerprints, strict=True):
            holder = tables.keys.get((row[0], key)) if key is not None else Holder(row[1], b"")
            if self.switches.keys_forgotten:
                holder = Holder(row[1], fingerprint or b"")
            holders.append(None if holder is None else holder.job)
            prints.append(None if holder is None else holder.fingerprint)
        answer = (accepted[0], marks if any(marks) else None, *accepted[2:], holders, prints)
        return [_KeyedRow(answer)]

    def read_intake_offsets(self, topic_id: str, partitions: Sequence[int]) -> list[Any]:
        stored = self.tables.intake
        return [_OffsetRow((each, stored[topic_id, each])) for each in partitions if (topic_id, each) in stored]

    def move_intake_offsets(
        self, topic_id: str, partitions: Sequence[int], befores: Sequence[int], afters: Sequence[int]
    ) -> list[tuple[int]]:
        moved = []
        for partition, before, after in zip(partitions, befores, afters, strict=True):
            if self.tables.intake.get((topic_id, partition), before) == before:
                self.tables.intake[topic_id, partition] = after
                moved.append((partition,))
        return moved

    def cancel_job(self, tenant: UUID, job_id: UUID) -> list[Any]:
        tables, key = self.tables, (tenant, job_id)
        job = tables.jobs.get(key)
        if job is None:
            return [_CancelRow(("absent", *(None,) * 8))]
        if job.state is JobState.RUNNING:
            assert job.worker is not None
            hooks = int(job.hooks | Hook.CANCEL_REQUESTED)
            tables.jobs[key] = self.moved(job, Command.REQUEST_CANCEL, hooks=hooks)
            tables.cancels[job.worker, tenant, job_id] = job.fence
            return [_CancelRow(("requested", *(None,) * 8))]
        event = self._mint()
        ended = self.moved(job, Command.CANCEL)
        del tables.jobs[key]
        self.keep_result(
            Result(
                tenant, job_id, event, None, job.started_at, self.now, job.fence, job.type_id, ended.state,
                job.priority, job.queue_id, job.attempt, job.losses, None, None, None,
            )
        )  # fmt: skip
        tables.waiting.pop(key, None)
        tables.timers.pop((*key, NO_ENDPOINT), None)
        following: tuple[Any, ...] = (None,) * 6
        if job.hooks & Hook.ORDERED:
            for ready in self.pass_order([key], ()):
                outbox = self.tell_jobs(OutboxKind.READY_JOBS, [ready])
                following = (ready.job, ready.fence, ready.type_id, ready.priority, ready.queue_id, outbox)
        told = self.tell_jobs(OutboxKind.ENDED_JOBS, [job])
        return [_CancelRow(("cancelled", event, told, *following))]

    def redrive_job(self, tenant: UUID, job_id: UUID, new_id: UUID, due_at: datetime | None) -> list[Any]:
        tables = self.tables
        due_at = due_at if due_at is not None and due_at > self.now else None
        letter = tables.dead.pop((tenant, 1, job_id), None)
        if letter is None:
            return [_RedriveRow(self._redriven_before(tenant, job_id))]
        sent, key = tables.payloads[tenant, job_id], (tenant, new_id)
        mark = _PARKED if due_at is None and (tenant, sent.queue_id) in tables.backlogs else 0
        tables.payloads[key] = replace(sent, job=new_id, created_at=self.now, run_at=due_at, redrive_of=job_id)
        if sent.ordering_key is not None:
            line = self.line_of(tenant, sent.ordering_key)
            seq = line.seq_of(job_id) if letter.order_seq is None else letter.order_seq
            mark = mark | _ORDERED if new_id in line.redrive(job_id, new_id, seq) else _BLOCKED | _ORDERED
        state = JobState.QUEUED if due_at is None else JobState.SCHEDULED
        job = Job(
            tenant, new_id, due_at or self.now, due_at, sent.type_id, sent.timeout_ms,
            JobState.BLOCKED if mark & _BLOCKED else state,
            sent.priority, sent.queue_id, sent.max_attempts, mark & (_ORDERED | _PARKED),
        )  # fmt: skip
        tables.jobs[key] = job
        self.note(new_id, f"redrives {job_id} as {job.state.label}, hooks {job.hooks}")
        tables.redrives[tenant, job_id] = new_id
        if mark & _PARKED:
            self.park(key, (LineKind.BACKLOG, sent.queue_id), sent.priority)
        if due_at is not None and not mark & _BLOCKED:
            self.set_timer(*key, NO_ENDPOINT, kind=1, fence=0, due_at=due_at, carried=False)
        is_told = due_at is None and not mark & (_BLOCKED | _PARKED)
        outbox = self.tell_jobs(OutboxKind.READY_JOBS, [job]) if is_told else None
        return [_RedriveRow(("redriven", new_id, outbox, sent.type_id, sent.priority, sent.queue_id))]

    def _redriven_before(self, tenant: UUID, job_id: UUID) -> tuple[Any, ...]:
        tables = self.tables
        made = tables.redrives.get((tenant, job_id))
        if made is not None and (tenant, made) in tables.jobs:
            return ("open", made, None, None, None, None)
        ended = tables.results.get((tenant, job_id))
        if ended is not None:
            answer = "closed" if ended[0].state is JobState.FAILED else "not_failed"
        else:
            answer = "not_failed" if (tenant, job_id) in tables.jobs else "absent"
        return (answer, None, None, None, None, None)

    def _accept(self, rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        """Store a flush, but for those above their tenants' rates."""
        tables, now = self.tables, self.now
        marks, limits = self._limited(rows)
        told: list[Job] = []
        for place, row in enumerate(rows):
            tenant, job_id, type_id, priority, queue_id, timeout_ms, max_attempts, due_at, *sent = row
            payload, metadata, retry, _, ordering_key = sent
            if marks[place] == _REFUSED:
                continue
            mark, key = 0, (tenant, job_id)
            if ordering_key is not None:
                ready = job_id in self.line_of(tenant, ordering_key).accept(job_id)
                mark = _ORDERED if ready or self.switches.order_unheld else _ORDERED | _BLOCKED
            if (tenant, queue_id) in tables.backlogs and due_at is None and not mark & _BLOCKED:
                mark |= _PARKED
                self.park(key, (LineKind.BACKLOG, queue_id), priority)
            state = JobState.QUEUED if due_at is None else JobState.SCHEDULED
            job = Job(
                tenant, job_id, due_at or now, due_at, type_id, timeout_ms,
                JobState.BLOCKED if mark & _BLOCKED else state, priority, queue_id, max_attempts,
                mark & (_ORDERED | _PARKED),
            )  # fmt: skip
            tables.jobs[key] = job
            self.note(job_id, f"accepted as {job.state.label}, hooks {job.hooks}")
            tables.payloads[key] = Payload(
                job_id,
                now,
                due_at,
                type_id,
                timeout_ms,
                priority,
                queue_id,
                max_attempts,
                payload,
                metadata,
                retry,
                ordering_key,
            )
            if due_at is not None and not mark & _BLOCKED:
                self.set_timer(*key, NO_ENDPOINT, kind=1, fence=0, due_at=due_at, carried=False)
            if due_at is None and not mark & (_BLOCKED | _PARKED):
                told.append(job)
            marks[place] = mark or None
        return (self.tell_jobs(OutboxKind.READY_JOBS, told), marks if any(marks) else None, *limits)

    def _limited(self, rows: Sequence[tuple[Any, ...]]) -> tuple[list[int | None], tuple[Any, ...]]:
        """Of each limited tenant the first that fit; the others are marked as refused."""
        marks: list[int | None] = [None] * len(rows)
        asked = Counter(row[0] for row in rows)
        tenants = sorted(tenant for tenant in asked if tenant in self.tables.admissions)
        if not tenants:
            return marks, (None,) * 5
        columns: list[tuple[Any, ...]] = []
        for tenant in tenants:
            gate = self.tables.admissions[tenant]
            fits = min(asked[tenant], gate.room(self.now_us) or 0)
            mine = [place for place, row in enumerate(rows) if row[0] == tenant]
            for place in mine[fits:]:
                marks[place] = _REFUSED
            gate = self.tables.admissions[tenant] = gate.start(self.now_us, fits)
            assert gate.log is not None, "an admission is a rate"
            opens_in = (gate.log.opens_at(self.now_us) - self.now_us) / 1_000_000
            window = gate.log.window_us / 1_000_000
            columns.append((tenant, gate.log.starts_allowed, window, gate.log.room(self.now_us), opens_in))
        return marks, tuple(list(column) for column in zip(*columns, strict=True))

    def _mint(self) -> UUID:
        """As the database's own `uuidv7` does; the simulation is the one source of chance."""
        self._minted = getattr(self, "_minted", 0) + 1
        return uuid7(int(self.now.timestamp() * 1_000), self._minted.to_bytes(RANDOM_BYTES))


def _rows(columns: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The jobs of a flush: columns that hold the same for all, or nothing, came short."""
    count = len(columns[1])
    shared = (0, 2, 3)
    whole = []
    for place, column in enumerate(columns):
        empty = 0 if place == 4 else None
        if not len(column):
            whole.append([empty] * count)
        elif place in shared and len(column) == 1:
            whole.append([column[0]] * count)
        else:
            whole.append([empty if value is None else value for value in column])
    return list(zip(*whole, strict=True))
