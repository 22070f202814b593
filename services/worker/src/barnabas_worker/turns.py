"""The turns of a worker, one after the other on each of a few connections, and the drain at the end."""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import chain
from uuid import UUID

import structlog

from barnabas.domain.attempts import Cancelled, HandedBack, Lost, Outcome, Raised, Snoozed, Succeeded, TimedOut
from barnabas.domain.grouping import hold_seconds
from barnabas.domain.jobs import Hook
from barnabas.errors import DatabaseUnavailableError
from barnabas.postgres.database import ConflictError, LeaseOverError, Session
from barnabas.postgres.turns import give_back_woken
from barnabas.runtime import metrics
from barnabas.runtime.crash_points import CrashPoint, reach
from barnabas.runtime.periodic import retry_pause
from barnabas.runtime.stop import Stop
from barnabas.sdk.running import Interruption, Run
from barnabas_worker.headroom import headroom_of, quiet
from barnabas_worker.holdings import Ended, Held
from barnabas_worker.look_ahead import Wanted
from barnabas_worker.resources import Resources
from barnabas_worker.slots import Slots
from barnabas_worker.start import hold_all
from barnabas_worker.turn import Written, count_turn, tidy, write_turn

log = structlog.get_logger(__name__)

# Left of the drain's time for the hand-back itself: one transaction, the producer's flush, the heartbeat's row.
_HAND_BACK_SECONDS = 5.0
# A batch of this size gains nothing by waiting for more.
_GOOD_BATCH = 250
_ENDINGS_MAX = 500
# A plain number: a flag's own & costs a microsecond, and is asked for each job.
_LIMITED = int(Hook.LIMITED | Hook.LIMITED_TYPE)
_IDLE_DELETE_SECONDS = 0.2
# Whatever there is to do sets `work`.
_IDLE_SECONDS = 5.0


class Turns:
    """The shared state of the turns in flight."""

    def __init__(self, resources: Resources, group: asyncio.TaskGroup, stop: Stop) -> None:
        self.resources = resources
        self._stop = stop
        self.slots = resources.slots = Slots(
            resources.settings.slots,
            group,
            resources.deadlines,
            on_end=self._on_end,
            on_too_many_stuck=self._give_way,
        )
        self.reserved = 0
        """Slots kept for claims in flight."""
        self._claiming: list[list[Wanted]] = []
        """What the turns in flight claim."""
        self._headroom = headroom_of(resources.settings.slots)
        self.writing = 0
        """Endings that a turn in flight is writing."""
        self.over = False
        """No more claims: the drain has begun."""
        self.ended = Stop()
        """Everything is written: the lease may go."""
        self.closed = False
        """Nothing more to write: the turns end."""

    @property
    def has_work(self) -> bool:
        """Whether a turn would do something."""
        records = self.resources.records
        if self.resources.finished:
            return True
        if not len(records) or self.free <= 0:
            return False
        return self.free_for_all > 0 or records.has_for(self._quiet()[1])

    @property
    def batch_at_hand(self) -> int:
        """How many jobs a turn that began now would move."""
        return len(self.resources.finished) + min(len(self.resources.records), max(0, self.free))

    @property
    def free(self) -> int:
        """Slots to claim for now."""
        if self.over or not self.resources.identity.alive:
            return 0
        return min(self.slots.free - self.reserved, self.resources.settings.claim_rows_max)

    @property
    def free_for_all(self) -> int:
        """Those of them that anybody's jobs may have; the others are for tenants that run next to nothing here."""
        return max(0, min(self.free, self.slots.free - self.reserved - self._headroom))

    @property
    def holds_nothing(self) -> bool:
        """Whether every claimed job has been written off, and no claim is on its way."""
        return not self.resources.holdings.batches and not self.resources.finished and not self.writing

    def _on_end(self, held: Held, run: Run, seconds: float) -> None:
        resources = self.resources
        resources.finished.append(Ended(held, run.outcome, seconds))
        resources.work.set()

    def _give_way(self) -> None:
        """Drain and end: a thread can't be killed, but whoever starts this process again gets all slots back."""
        if not self._stop.is_set():
            log.error("too_many_threads_stuck", stuck=self.slots.stuck, slots=self.slots.size)
            self._stop.set()

    async def run_one(self, session: Session) -> None:
        """Gather, write, act."""
        resources = self.resources
        finished = resources.finished[:_ENDINGS_MAX]
        del resources.finished[: len(finished)]
        _name_events(resources, finished)
        wanted = self._choose()
        # Whom an ending wakes may have its slot at once, but only when nobody else is there to be fair to.
        spare = max(0, self.free_for_all - len(wanted))
        spare = min(spare, sum(1 for one in finished if one.held.job.hooks & _LIMITED))
        worker_id = resources.identity.worker_id
        self._claiming.append(wanted)
        self.reserved += len(wanted) + spare
        self.writing += len(finished)
        started = resources.clock.monotonic()
        resources.arrivals.add(len(finished), now=started)
        try:
            written = await write_turn(resources, session, finished, wanted, worker_id=worker_id, spare=spare)
        except BaseException as error:
            resources.finished[:0] = finished
            resources.records.put_back(wanted)
            if isinstance(error, LeaseOverError):
                resources.identity.lose()
            raise
        finally:
            self._claiming.remove(wanted)
            self.reserved -= len(wanted) + spare
            self.writing -= len(finished)
        self._act(finished, wanted, worker_id, written)
        metrics.flush_rows.labels("turn").observe(len(finished) + len(wanted))
        metrics.flush_seconds.labels("turn").observe(resources.clock.monotonic() - started)

    def _choose(self) -> list[Wanted]:
        """The fairest next for the slots that are free, and for the last of them whoever runs next to nothing here."""
        records, free = self.resources.records, max(0, self.free)
        wanted = records.take(self.free_for_all)
        if self._headroom and len(wanted) < free and len(records):
            held, is_quiet = self._quiet()
            held.update(one.tenant_id for one in wanted)
            while len(wanted) < free and (more := records.take_for(1, is_quiet)):
                held[more[0].tenant_id] += 1
                wanted += more
        return wanted

    def _quiet(self) -> "tuple[Counter[UUID], Callable[[UUID], bool]]":
        running = (one.job.tenant_id for one in self.resources.holdings.jobs.values() if not one.ended)
        claiming = (one.tenant_id for wanted in self._claiming for one in wanted)
        return quiet(self.slots.size, chain(running, claiming))

    def _act(self, finished: list[Ended], wanted: list[Wanted], worker_id: UUID, written: Written) -> None:
        """After the commit: forget what is written, start what was claimed, tell Kafka."""
        resources = self.resources
        if written.again:
            resources.finished[:0] = written.again
            kept = {one.held for one in written.again}
            finished = [one for one in finished if one.held not in kept]
        resources.holdings.leave(one.held for one in finished)
        resources.records.settle(wanted)
        if written.claims is not None:
            if written.claims.claimed:
                reach(CrashPoint.WORKER_AFTER_CLAIM)
            held = hold_all(resources, written.claims.claimed, worker_id=worker_id, batch_id=written.batch_id)
            resources.holdings.take(written.batch_id, held)
            for one in held:
                self.slots.start(one)
            if worker_id != resources.identity.worker_id or not resources.identity.alive or self.over:
                # The lease was lost, or the drain began, while the claim was on its way.
                for one in held:
                    one.attempt.interrupt(Interruption.DRAIN)
        if written.woken:
            resources.records.push_woken(written.woken)
        if written.tell:
            reach(CrashPoint.WORKER_AFTER_FINISH)
            for outbox_id, records in written.tell:
                resources.teller.tell(outbox_id, records)
            reach(CrashPoint.WORKER_AFTER_TELL)
        count_turn(written)
        _measure(finished)


def _name_events(resources: Resources, finished: list[Ended]) -> None:
    unnamed = [one for one in finished if one.event_id is None]
    for one, event_id in zip(unnamed, resources.ids.mint_many(len(unnamed)), strict=True):
        one.event_id = event_id


def _measure(finished: list[Ended]) -> None:
    seconds: dict[str, list[float]] = {}
    for ended in finished:
        seconds.setdefault(_outcome_name(ended.outcome), []).append(ended.seconds)
    for name, values in seconds.items():
        count, histogram = _MEASURES[name]
        count.inc(len(values))
        metrics.observe_all(histogram, values)


def _outcome_name(outcome: Outcome) -> str:
    if isinstance(outcome, Raised):
        return "retryable" if outcome.retryable else "permanent"
    return _OUTCOMES[type(outcome)]


_OUTCOMES: dict[type[Outcome], str] = {
    Succeeded: "succeeded",
    TimedOut: "timeout",
    Cancelled: "cancelled",
    HandedBack: "handed_back",
    Snoozed: "snoozed",
    Lost: "lost",
}
# The children are kept: looking one up costs more than the observation.
_MEASURES = {
    name: (metrics.attempts.labels(name), metrics.attempt_seconds.labels(name))
    for name in (*_OUTCOMES.values(), "retryable", "permanent")
}


async def take_turns(resources: Resources, stop: Stop) -> None:
    """Turn until the stop, then drain: let attempts end, hand back the rest, write everything."""
    async with asyncio.TaskGroup() as group:
        turns = Turns(resources, group, stop)
        for number in range(resources.settings.turns):
            group.create_task(_turn_for_ever(turns), name=f"turn-{number}")
        keeper = group.create_task(_keep_identity(turns), name="keep_identity")
        await stop.requested()
        await _drain(turns)
        turns.ended.set()
        await keeper
        turns.closed = True
        resources.work.set()
        turns.slots.close()


async def _keep_identity(turns: Turns) -> None:
    """Hold a lease; when it is lost, give up what runs under it and go on under a new one."""
    resources = turns.resources

    def lost() -> None:
        # Whoever holds these jobs next will run them: what ends here now is refused by its fence.
        resources.holdings.interrupt_all(Interruption.DRAIN)

    await resources.identity.keep(turns.ended, on_lost=lost, on_alive=resources.work.set)
    reach(CrashPoint.WORKER_AFTER_HAND_BACK)
    await resources.identity.end(holds_nothing=turns.holds_nothing)


async def _turn_for_ever(turns: Turns) -> None:
    """One connection's turns. It is held from turn to turn: getting one from the pool costs 0.2 ms."""
    resources = turns.resources
    failures = 0
    while not turns.closed:
        try:
            async with resources.database.session() as session:
                if not resources.connected:
                    # A worker that has nothing to do would never notice that Postgres is back.
                    await session.fetchval("read_clock")
                    resources.connected = True
                while not turns.closed:
                    await _wait_for_work(turns)
                    if turns.has_work:
                        await turns.run_one(session)
                        resources.connected, failures = True, 0
                    else:
                        await tidy(resources, session)
        except ConflictError as error:
            log.info("turn_repeated", reason=str(error))
        except LeaseOverError:
            log.warning("claim_refused", reason="the lease is over")
        except DatabaseUnavailableError as error:
            failures += 1
            resources.connected = False
            log.warning("turn_postponed", reason=str(error), failures=failures)
            await asyncio.sleep(retry_pause(0.1, failures, jitter=resources.jitter()))


async def _wait_for_work(turns: Turns) -> None:
    """Return when a turn has something to do, when rows are to be deleted after an idle moment, or at the close."""
    resources = turns.resources
    while not turns.closed and not turns.has_work:
        resources.work.clear()
        try:
            busy = resources.teller.busy or resources.holdings.empty
            async with asyncio.timeout(_IDLE_DELETE_SECONDS if busy else _IDLE_SECONDS):
                await resources.work.wait()
        except TimeoutError:
            if resources.teller.pending or resources.holdings.empty:
                return
    rate = resources.arrivals.rate(now=resources.clock.monotonic())
    hold = hold_seconds(rate)
    if hold and not turns.over and turns.batch_at_hand < _GOOD_BATCH:
        await asyncio.sleep(hold)


async def _drain(turns: Turns) -> None:
    """Stop claiming; wait for what runs; hand back what doesn't end in time; have all of it written."""
    resources = turns.resources
    turns.over = True
    loop = asyncio.get_running_loop()
    began = loop.time()
    patience = max(0.0, resources.settings.drain_seconds - _HAND_BACK_SECONDS)
    log.info("draining", jobs=len(resources.holdings.jobs), seconds=patience)
    while not turns.holds_nothing and loop.time() - began < patience:
        resources.work.set()
        await asyncio.sleep(0.02)
    if not turns.holds_nothing:
        reach(CrashPoint.WORKER_BEFORE_HAND_BACK)
    resources.holdings.interrupt_all(Interruption.DRAIN)
    while not turns.holds_nothing and loop.time() - began < patience + _HAND_BACK_SECONDS * 0.6:
        resources.work.set()
        await asyncio.sleep(0.02)
    await resources.producer.flush(_HAND_BACK_SECONDS * 0.2)
    try:
        async with resources.database.session() as session:
            await tidy(resources, session)
            # Called here and not claimed any more: the sweep calls them again within a second.
            await give_back_woken(session, resources.records.take_woken())
    except DatabaseUnavailableError as error:
        log.warning("outbox_rows_left", reason=str(error))
    log.info("drained", left=len(resources.holdings.jobs), seconds=round(loop.time() - began, 3))
