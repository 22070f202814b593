"""Invariants 7 and 10: what Kafka was told about ended jobs, and that nothing of it was lost on the way."""

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.evidence import Case, Evidence
from tests.chaos.final import DeadDeliveryRecord, EndedJob, EventRecord
from tests.chaos.violation import Violation


def results(evidence: Evidence) -> Iterator[Violation]:
    """7: each ended job has at least one event, all equal to its row, none made before its end; there is no other.

    Where Kafka was wiped, only what ended afterwards must be there.
    """
    if evidence.final.events is None:
        return
    for case in evidence.cases.values():
        for ended in case.ended:
            is_told = any(record.event_id == ended.event_id for record in case.events)
            if not is_told and ended.finished_at > evidence.records_from:
                yield Violation(7, f"no event tells that the job {ended.state}", case.tenant, case.job)
        yield from _told(case, case.events, evidence)


def _told(case: Case, records: Sequence[EventRecord], evidence: Evidence) -> Iterator[Violation]:
    for record in records:
        ended = next((one for one in case.ended if one.event_id == record.event_id), None)
        if ended is None:
            what = f"event {record.event_id} ({record.type}) tells of an end that was never committed"
            yield Violation(7, what, case.tenant, case.job)
            continue
        for difference in _differences(record, ended):
            yield Violation(7, f"event {record.event_id} {difference}", case.tenant, case.job)
        if record.at is not None and record.at < ended.finished_at - evidence.rules.slack_seconds:
            what = f"event {record.event_id} was made {ended.finished_at - record.at:.1f} s before the job ended"
            yield Violation(7, what, case.tenant, case.job)


def _differences(record: EventRecord, ended: EndedJob) -> Iterator[str]:
    if record.type != f"job.{ended.state}":
        yield f"is {record.type}, the job {ended.state}"
    # A simulator's records may not tell the numbers.
    if record.fence and (record.fence, record.attempt) != (ended.fence, ended.attempt):
        told, true = f"attempt {record.attempt}, fence {record.fence}", f"{ended.attempt}, {ended.fence}"
        yield f"tells of {told}, the row of {true}"
    if record.reason is not None and record.reason != ended.reason:
        yield f"gives the reason {record.reason}, the row {ended.reason}"


def kafka(evidence: Evidence) -> Iterator[Violation]:
    """10: every record below the highest offset of its partition was read, each once; and dead letters are told.

    A job is a dead letter exactly when it failed: its row stands until it is redriven, and `jobs.dlq` has its copy. The
    same for deliveries that failed, and `deliveries.dlq`.
    """
    final = evidence.final
    for read in final.partitions:
        if read.count != read.high - read.low:
            what = f"{read.topic} {read.partition}: {read.high - read.low} records are there, {read.count} were read"
            yield Violation(10, what)
    for name, records in (
        ("results", final.events),
        ("jobs.dlq", final.dead_jobs),
        ("deliveries.dlq", final.dead_deliveries),
    ):
        places = Counter((record.partition, record.offset) for record in records or ())
        if places and max(places.values()) > 1:
            twice = [place for place, count in places.items() if count > 1]
            yield Violation(10, f"{name}: offsets that came twice: {twice[:5]}")
    yield from _dead_jobs(evidence)
    yield from _dead_deliveries(evidence)


def _dead_jobs(evidence: Evidence) -> Iterator[Violation]:
    final = evidence.final
    letters = Counter(letter.ref for letter in final.dead_letters if letter.kind == "job")
    redriven = {redrive.dead for redrive in final.redrives}
    for job, count in letters.items():
        case = evidence.cases.get(job)
        if case is None or not any(ended.state == "failed" for ended in case.ended):
            yield Violation(10, "a dead letter of a job that has not failed", "" if case is None else case.tenant, job)
        elif count > 1:
            yield Violation(10, f"{count} dead letters of one job", case.tenant, job)
        if job in redriven and case is not None:
            yield Violation(10, "the job was redriven and its dead letter is still there", case.tenant, job)
    for case in evidence.cases.values():
        for ended in case.ended:
            if ended.state != "failed":
                continue
            if ended.job not in letters and ended.job not in redriven:
                yield Violation(10, "the job failed and is no dead letter", case.tenant, case.job)
            is_told = final.dead_jobs is None or any(one.event_id == ended.event_id for one in case.dead_events)
            if not is_told and ended.finished_at > evidence.records_from:
                yield Violation(10, "the job failed and jobs.dlq has no copy", case.tenant, case.job)
        for record in case.dead_events:
            known = next((one for one in case.ended if one.event_id == record.event_id), None)
            if known is None or known.state != "failed":
                yield Violation(10, "jobs.dlq tells of a job that has not failed", case.tenant, case.job)
            else:
                for difference in _differences(record, known):
                    yield Violation(10, f"the copy in jobs.dlq {difference}", case.tenant, case.job)


def _dead_deliveries(evidence: Evidence) -> Iterator[Violation]:
    final = evidence.final
    letters = {letter.ref for letter in final.dead_letters if letter.kind == "delivery"}
    told: dict[tuple[str, str], DeadDeliveryRecord] = {}
    for record in final.dead_deliveries or ():
        told[record.event_id, record.endpoint] = record
        if (record.event_id, record.endpoint) not in evidence.deliveries:
            yield Violation(10, "deliveries.dlq tells of a delivery that is not there", record.tenant, record.job)
    known: set[str] = set()
    for key, rows in evidence.deliveries.items():
        for row in rows:
            if row.state != "failed":
                continue
            known.add(row.delivery)
            if row.delivery not in letters:
                yield Violation(10, "a delivery failed and is no dead letter", row.tenant, row.job)
            finished_at = row.finished_at or 0.0
            if final.dead_deliveries is not None and key not in told and finished_at > evidence.records_from:
                yield Violation(10, "a delivery failed and deliveries.dlq has no copy", row.tenant, row.job)
    for ref in sorted(letters - known):
        yield Violation(10, f"a dead letter of delivery {ref}, which has not failed")
