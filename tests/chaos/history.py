"""The history of one job, from all that was written about it: what a person reads first when a run has failed."""

from collections.abc import Iterator, Sequence
from operator import itemgetter

import msgspec

from tests.chaos.final import Final
from tests.chaos.ledger import Accepted, Accepting, CrashPoint, Event, FaultBegan, FaultEnded, Refused, Unknown

# Faults farther from the job than this did it no harm.
_AROUND_SECONDS = 30.0
_UNSAID = frozenset({"at", "job", "tenant", "started_at", "finished_at"})
_SUBMISSIONS = (Accepting, Accepted, Refused, Unknown)
_FAULTS = (FaultBegan, FaultEnded, CrashPoint)

Line = tuple[float, str]


def history(job: str, events: Sequence[Event], final: Final) -> str:
    """All that the ledger and the final state have of this job, in the order of time, with the faults around it.

    Times are in seconds from the first line of the job's own; rows without a time come last.
    """
    keys = {(row.tenant, row.key) for row in final.keys if row.job == job}
    keys |= {(one.tenant, one.key) for one in events if isinstance(one, Accepted) and one.job == job}
    lines = [*_of_ledger(job, keys, events), *_of_rows(job, final)]
    timed = sorted((line for line in lines if line[0] != float("inf")), key=itemgetter(0))
    if timed:
        begin, end = timed[0][0], timed[-1][0]
        faults = [
            (one.at, f"--- {_said(one)}")
            for one in events
            if isinstance(one, _FAULTS) and begin - _AROUND_SECONDS <= one.at <= end + _AROUND_SECONDS
        ]
        timed = sorted([*timed, *faults], key=itemgetter(0))
        shown = [f"{at - begin:+10.3f} s  {text}" for at, text in timed]
    else:
        shown = []
    shown += [f"{'at the end':>12}  {text}" for at, text in lines if at == float("inf")]
    tenants = sorted({tenant for tenant, _ in keys})
    return "\n".join([f"job {job} of tenant {', '.join(tenants) or 'unknown'}", *shown])


def _of_ledger(job: str, keys: set[tuple[str, str]], events: Sequence[Event]) -> Iterator[Line]:
    for event in events:
        is_about = job in (getattr(event, "job", ""), getattr(event, "dead", ""))
        if isinstance(event, _SUBMISSIONS):
            is_about = (event.tenant, event.key) in keys
        if is_about:
            yield event.at, _said(event)


def _of_rows(job: str, final: Final) -> Iterator[Line]:
    for claim in final.attempts:
        if claim.job == job:
            if claim.started_at is not None:
                yield claim.started_at, f"claim {claim.fence} began"
            yield claim.finished_at, _said(claim)
    for ended in final.ended:
        if ended.job == job:
            if ended.started_at is not None and ended.held:
                yield ended.started_at, f"claim {ended.fence} began"
            yield ended.finished_at, _said(ended)
    for record in (*(final.events or ()), *(final.dead_jobs or ())):
        if record.job == job:
            yield float("inf") if record.at is None else record.at, _said(record)
    for delivery in final.deliveries:
        if delivery.job == job:
            yield float("inf") if delivery.finished_at is None else delivery.finished_at, _said(delivery)
    for row in (*final.open, *final.keys, *final.redrives, *final.dead_letters, *(final.dead_deliveries or ())):
        if job in (getattr(row, "job", ""), getattr(row, "ref", ""), getattr(row, "dead", "")):
            yield float("inf"), _said(row)


def _said(struct: msgspec.Struct) -> str:
    """Its name, and whatever it says beyond its defaults."""
    fields = msgspec.structs.fields(type(struct))
    told = [
        f"{field.name}={getattr(struct, field.name)}"
        for field in fields
        if field.name not in _UNSAID and getattr(struct, field.name) != field.default
    ]
    return f"{type(struct).__name__} {' '.join(told)}"
