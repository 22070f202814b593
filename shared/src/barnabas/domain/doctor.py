"""What is stuck, what will happen by itself and when, and what somebody has to do: judged from facts, as lines.

Pure: whoever asks gathers the facts (`barnabas doctor`) and prints the lines. Promises are those of `domain.recovery`,
which the retry-scheduler keeps; all of them need a leader, so without one nothing is promised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from barnabas.domain import recovery


class Level(StrEnum):
    """What a line asks of its reader."""

    FINE = "fine"
    HEALING = "healing"
    """Not as it should be, and it will be by itself."""
    ACT = "act"
    """Somebody has to do something."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing: what is, and what comes of it."""

    part: str
    level: Level
    now: str
    then: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """A service's process as its ops port tells. `reasons` is why it isn't ready, None when it can't be reached."""

    name: str
    url: str
    reasons: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The Postgres server and its schema."""

    now: datetime
    version: str
    is_standby: bool
    is_read_only: bool
    started_at: datetime
    connections: int
    connections_max: int
    oldest_transaction_at: datetime | None
    unlimited: tuple[str, ...] = ()
    missing_migrations: tuple[str, ...] = ()
    unknown_migrations: tuple[str, ...] = ()
    missing_days: tuple[tuple[str, date], ...] = ()
    """By table its first day from today on without a partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits in Postgres."""

    outbox_rows: int = 0
    outbox_at: datetime | None = None
    timer_at: datetime | None = None
    timers_late: int = 0
    workers: int = 0
    notifiers: int = 0
    leases_over: int = 0
    lease_at: datetime | None = None
    """When the first lease ends, or ended."""
    lead_until: datetime | None = None
    letters: tuple[int, int] = (0, 0)
    """Open dead letters: jobs, deliveries."""
    letters_at: tuple[datetime | None, datetime | None] = (None, None)
    open_jobs: int = 0
    backlogs: int = 0
    pending_deliveries: int = 0
    unhandled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A limit at which jobs wait."""

    tenant: str
    type: str | None
    allowed: int | None
    used: int
    starts_allowed: int | None
    waiting: int
    since: datetime
    room: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far a group is behind."""

    group: str
    records: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Kafka's topics beside the table."""

    count: int
    missing: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Other topics than those whose records Postgres knows: what they held is gone."""
    lags: tuple[Lag, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What the leader's reconciler said last."""

    untaken: int
    oldest_seconds: float
    next_seconds: float
    walk_seconds: float


_LAG_SECONDS = 30.0
_LETTER_SECONDS = 300.0
_TRANSACTION_SECONDS = 300.0
_CONNECTIONS_SHARE = 0.9
# Days are made three ahead.
_DAYS_AHEAD = 2
_DISK_BYTES = 2 * 1024**3
_DISK_SHARE = 0.05


def judge_processes(processes: Sequence[Process]) -> list[Line]:
    """A line for each process."""
    lines = []
    for process in processes:
        if process.reasons is None:
            told = ("can't be reached at " + process.url, "start it: what it held comes back when its lease is over")
            lines.append(Line(process.name, Level.ACT, *told))
        elif process.reasons:
            then = "it is ready by itself when that ends; its log says since when"
            lines.append(Line(process.name, Level.HEALING, "not ready: " + "; ".join(process.reasons), then))
        else:
            lines.append(Line(process.name, Level.FINE, "ready"))
    return lines


def judge_server(server: Server) -> list[Line]:
    """The server, its logins, its schema and its days."""
    lines = []
    up = _span((server.now - server.started_at).total_seconds())
    if server.is_standby or server.is_read_only:
        what = "a standby" if server.is_standby else "read-only"
        then = (
            "nothing is accepted until it is promoted, or the address has target_session_attrs=read-write and a primary"
        )
        lines.append(Line("postgres", Level.ACT, f"Postgres {server.version} is {what}", then))
    else:
        lines.append(Line("postgres", Level.FINE, f"Postgres {server.version}, takes writes, up for {up}"))
    if server.connections >= _CONNECTIONS_SHARE * server.connections_max:
        told = f"{server.connections} of {server.connections_max} connections are taken"
        lines.append(Line("postgres", Level.ACT, told, "raise max_connections, or run fewer processes"))
    oldest = server.oldest_transaction_at
    if oldest is not None and (server.now - oldest).total_seconds() > _TRANSACTION_SECONDS:
        told = f"a transaction is open for {_span((server.now - oldest).total_seconds())}: vacuum waits for it"
        lines.append(Line("postgres", Level.ACT, told, "find it in pg_stat_activity, and end it"))
    if server.unlimited:
        then = "run `barnabas migrate --prepare`, or set them as docs/operations.md says"
        lines.append(Line("logins", Level.ACT, f"without time-outs: {', '.join(server.unlimited)}", then))
    if server.missing_migrations:
        told = "migrations are missing: " + ", ".join(server.missing_migrations)
        lines.append(Line("schema", Level.ACT, told, "run `barnabas migrate`"))
    elif server.unknown_migrations:
        told = f"the schema is newer than this command: {server.unknown_migrations[-1]}"
        lines.append(Line("schema", Level.FINE, told))
    else:
        lines.append(Line("schema", Level.FINE, "every migration is applied"))
    return lines + _judge_days(server)


def _judge_days(server: Server) -> list[Line]:
    today = server.now.date()
    short = [(table, day) for table, day in server.missing_days if (day - today).days <= _DAYS_AHEAD]
    if not short:
        return [Line("days", Level.FINE, "partitions are there for today and the days to come")]
    table, day = min(short, key=lambda each: each[1])
    level = Level.ACT if day <= today + timedelta(days=1) else Level.HEALING
    then = "the leader makes missing days once an hour, and at once when it begins to lead: see its log"
    return [Line("days", level, f"{table} has no partition from {day} on", then)]


def judge_waiting(waiting: Waiting, *, now: datetime, lease_seconds: float) -> list[Line]:
    """Who leads, and what the leader will bring back."""
    leads = waiting.lead_until is not None and waiting.lead_until > now
    lines = [_judge_leader(waiting, now, leads=leads), *_judge_leases(waiting, now, lease_seconds, leads=leads)]
    lines += [_judge_outbox(waiting, now, leads=leads), _judge_timers(waiting, now, leads=leads)]
    if not waiting.workers and waiting.open_jobs:
        told = f"no worker is alive, {_count(waiting.open_jobs)} jobs are open"
        lines.append(Line("workers", Level.ACT, told, "start workers: nothing runs until then, and nothing is lost"))
    else:
        told = f"{waiting.workers} workers and {waiting.notifiers} notifiers are alive"
        lines.append(Line("workers", Level.FINE, f"{told}, {_count(waiting.open_jobs)} jobs are open"))
    if waiting.unhandled:
        told = "jobs wait for a handler that no live worker has: " + ", ".join(waiting.unhandled)
        then = "start a worker with it: they go out within a second, 500 at a time"
        lines.append(Line("handlers", Level.ACT, told, then))
    if waiting.backlogs:
        told = f"{waiting.backlogs} tenants have a backlog in Postgres"
        lines.append(Line("backlog", Level.HEALING, told, "workers of its queue fetch it whenever they have room"))
    if waiting.pending_deliveries:
        told = f"{_count(waiting.pending_deliveries)} deliveries wait for a notifier"
        then = _promise(leads, "lost ones are told again at the end of each walk over the open jobs")
        lines.append(Line("deliveries", Level.HEALING, told, then))
    return lines + _judge_letters(waiting, now)


def _judge_leader(waiting: Waiting, now: datetime, *, leads: bool) -> Line:
    if leads:
        return Line("leader", Level.FINE, "a retry-scheduler leads")
    told = "no retry-scheduler leads"
    if waiting.lead_until is not None:
        told += f" since {_span((now - waiting.lead_until).total_seconds())}"
    then = "start one: leases, timers, the outbox, lost records and windows of limits wait for it"
    return Line("leader", Level.ACT, told, then)


def _judge_leases(waiting: Waiting, now: datetime, lease_seconds: float, *, leads: bool) -> list[Line]:
    if not waiting.leases_over:
        return [Line("leases", Level.FINE, "every lease holds")]
    assert waiting.lease_at is not None, "one that is over has a time"
    told = f"{waiting.leases_over} leases are over, the oldest for {_span((now - waiting.lease_at).total_seconds())}"
    then = (
        f"the reaper takes their jobs back within {recovery.QUESTION_SECONDS:g} s, after an outage of Postgres when it "
        f"has been back for a lease ({lease_seconds:g} s); each job is queued again with a loss"
    )
    return [Line("leases", Level.HEALING if leads else Level.ACT, told, _promise(leads, then))]


def _judge_outbox(waiting: Waiting, now: datetime, *, leads: bool) -> Line:
    age = 0.0 if waiting.outbox_at is None else (now - waiting.outbox_at).total_seconds()
    if age < recovery.OUTBOX_STALE_SECONDS:
        return Line("outbox", Level.FINE, f"{waiting.outbox_rows} rows on their way to Kafka")
    told = f"{waiting.outbox_rows} rows, the oldest for {_span(age)}"
    then = f"the relay sends rows older than {recovery.OUTBOX_STALE_SECONDS:g} s as soon as Kafka acknowledges"
    return Line("outbox", Level.HEALING if leads else Level.ACT, told, _promise(leads, then))


def _judge_timers(waiting: Waiting, now: datetime, *, leads: bool) -> Line:
    if waiting.timer_at is None:
        return Line("timers", Level.FINE, "nothing waits for a time")
    late = (now - waiting.timer_at).total_seconds()
    if late <= recovery.TIER_LATE_SECONDS:
        then = f"the next one is looked at in {_span(-late)}" if late < 0 else "the next one is looked at now"
        return Line("timers", Level.FINE, "all in time", then)
    told = f"{_count(waiting.timers_late)} are late, the oldest by {_span(late)}"
    then = "the leader's poller takes 1,000 at a time, without a rest while there are as many"
    return Line("timers", Level.HEALING if leads else Level.ACT, told, _promise(leads, then))


def _judge_letters(waiting: Waiting, now: datetime) -> list[Line]:
    lines = []
    for kind, count, at in zip(("jobs", "deliveries"), waiting.letters, waiting.letters_at, strict=True):
        if not count or at is None:
            continue
        age = (now - at).total_seconds()
        told = f"{_count(count)} of {kind}, the oldest for {_span(age)}"
        then = f"they wait for somebody: `barnabas dlq list --kind {kind}`, then `barnabas dlq redrive --rate 10`"
        lines.append(Line("dead letters", Level.ACT if age > _LETTER_SECONDS else Level.HEALING, told, then))
    return lines or [Line("dead letters", Level.FINE, "none")]


def judge_gates(gates: Sequence[Gate], *, now: datetime, leads: bool) -> list[Line]:
    """Limits at which jobs wait: that is what limits are for, unless one has room."""
    lines = []
    for gate in gates:
        where = f"{gate.tenant}{'' if gate.type is None else ', type ' + gate.type}"
        limit = f"{gate.starts_allowed} starts a minute"
        if gate.allowed is not None:
            limit = f"{gate.used} of {gate.allowed} run"
        told = f"{where}: {_count(gate.waiting)} wait ({limit}), since {_span((now - gate.since).total_seconds())}"
        if gate.room is None or gate.room > 0:
            then = (
                f"there is room: they are woken within {recovery.QUESTION_SECONDS:g} s, those that were woken and not "
                f"claimed after {recovery.WOKEN_AGAIN_SECONDS:g} s again"
            )
            lines.append(Line("limits", Level.HEALING if leads else Level.ACT, told, _promise(leads, then)))
        else:
            then = "each end of one that runs, or the window, lets the next start; raise it with `barnabas limits set`"
            lines.append(Line("limits", Level.FINE, told, then))
    return lines


def judge_topics(topics: Topics, *, leads: bool) -> list[Line]:
    """Kafka's topics and how far their readers are."""
    lines = []
    wrong = [*(f"{name} is missing" for name in topics.missing), *topics.narrow]
    if wrong:
        then = _promise(leads, "the leader makes and widens topics every 10 s; `barnabas topics` does at once")
        lines.append(Line("topics", Level.HEALING if leads else Level.ACT, "; ".join(wrong), then))
    else:
        lines.append(Line("topics", Level.FINE, f"Kafka answers, {topics.count} topics are as they should be"))
    if topics.changed:
        told = (
            f"{len(topics.changed)} topics were made anew, and what they held is gone: {', '.join(topics.changed[:5])}"
        )
        then = _promise(leads, "every open job is sent again, BARNABAS_REPUBLISH_PER_SECOND (2,000) a second")
        lines.append(Line("topics", Level.HEALING if leads else Level.ACT, told, then))
    for lag in topics.lags:
        told = f"{lag.group} is {_count(lag.records)} records behind"
        if lag.oldest_seconds is not None:
            told += f", the oldest {_span(lag.oldest_seconds)} old"
        late = lag.records > 0 and (lag.oldest_seconds or 0.0) > _LAG_SECONDS
        then = "it reads on while one of its processes lives; more of them read faster" if late else ""
        lines.append(Line("lag", Level.HEALING if late else Level.FINE, told, then))
    return lines


def judge_lost(lost: Lost | None, *, open_jobs: int, leads: bool) -> Line:
    """What the reconciler has found, and when it looks again."""
    if not leads:
        then = "what Kafka loses is sent again when a retry-scheduler leads"
        return Line("lost records", Level.ACT, "nobody looks for them", then)
    if lost is None:
        told = "the leader's reconciler has not ended a walk yet, or could not be asked"
        return Line("lost records", Level.FINE, told, "its metrics tell: give its ops port with --ops")
    look = f"each open job is looked at every {_span(recovery.walk_seconds(open_jobs))}"
    if not lost.untaken and not lost.oldest_seconds:
        then = f"{look}; one counts as lost {recovery.LOST_MARGIN_SECONDS:g} s after the oldest unread record"
        return Line("lost records", Level.FINE, "none", then)
    told = f"{lost.untaken} jobs were sent again and not taken, the oldest is ready for {_span(lost.oldest_seconds)}"
    then = (
        f"the next is sent in {_span(lost.next_seconds)}: after {recovery.RESEND_SECONDS:g} s, then twice as long each "
        f"time, up to {_span(recovery.resend_interval(recovery.RESEND_DOUBLINGS_MAX))}; if it lasts, look whether a "
        "live worker serves their queue"
    )
    return Line("lost records", Level.HEALING, told, then)


def judge_disk(path: str, *, free_bytes: int, total_bytes: int) -> Line:
    """The disk of the local stack."""
    told = f"{free_bytes / 1024**3:.1f} of {total_bytes / 1024**3:.1f} GiB are free under {path}"
    if free_bytes < min(_DISK_BYTES, _DISK_SHARE * total_bytes):
        then = "make room: when it is full nothing is accepted (503) until there is some, and then goes on by itself"
        return Line("disk", Level.ACT, told, then)
    return Line("disk", Level.FINE, told)


def _promise(leads: bool, then: str) -> str:
    return then if leads else f"not before a retry-scheduler leads; then {then}"


def _count(number: int) -> str:
    """Counts end at 100,000."""
    return f"{number:,}" if number < 100_000 else "100,000 or more"


def _span(seconds: float) -> str:
    """A time span for people."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
