"""Invariant 8: each event reaches each endpoint that wants it, signed, and comes again only beside a fault.

Webhooks are promised in no order, so none is checked.
"""

from collections.abc import Iterator, Sequence

from tests.chaos.evidence import Evidence
from tests.chaos.final import DeliveryRow, EndedJob, EndpointRow
from tests.chaos.ledger import Received
from tests.chaos.violation import Violation

_OPEN = frozenset({"pending", "parked", "running", "retrying"})
_ENDED = frozenset({"succeeded", "failed", "cancelled"})


def webhooks(evidence: Evidence) -> Iterator[Violation]:
    """8: one delivery for each event and endpoint, its webhook-id the event's; every call signed, of that job and type.

    A delivery that succeeded was answered 2xx, and was not sent again after such an answer but beside a fault; one that
    ended otherwise was never answered 2xx but beside a fault. There are at most as many calls as claims.
    """
    ended = {one.event_id: one for one in evidence.final.ended}
    yield from _missing(evidence)
    # Without any call in the ledger nobody was listening.
    is_listening = bool(evidence.received)
    for key, rows in evidence.deliveries.items():
        row = rows[0]
        if len(rows) > 1:
            yield Violation(8, f"{len(rows)} deliveries of one event to one endpoint", row.tenant, row.job)
        event = ended.get(row.event_id)
        if event is None or event.job != row.job:
            yield Violation(8, f"a delivery of event {row.event_id}, which never happened", row.tenant, row.job)
        yield from _delivery(row, evidence.received.get(key, ()), evidence, is_listening=is_listening)
    for key, calls in evidence.received.items():
        if key not in evidence.deliveries:
            yield Violation(8, f"a webhook {key[0]} that no delivery stands for", calls[0].tenant, calls[0].job)
        yield from _calls(calls, ended.get(key[0]), evidence)


def _delivery(
    row: DeliveryRow, calls: Sequence[Received], evidence: Evidence, *, is_listening: bool
) -> Iterator[Violation]:
    if row.state in _OPEN:
        if not evidence.rules.open_allowed:
            yield Violation(8, f"a delivery is still {row.state}", row.tenant, row.job)
    elif row.state not in _ENDED:
        yield Violation(8, f"a delivery is {row.state}", row.tenant, row.job)
    if row.attempt > row.fence:
        yield Violation(8, f"a delivery with {row.attempt} attempts and {row.fence} claims", row.tenant, row.job)
    if len(calls) > row.fence:
        yield Violation(8, f"{len(calls)} calls under {row.fence} claims", row.tenant, row.job)
    taken = [call for call in calls if _is_taken(call)]
    if row.state == "succeeded" and is_listening and not taken:
        what = f"a delivery succeeded and no call of it was answered 2xx: {row.event_id}"
        yield Violation(8, what, row.tenant, row.job)
    if row.state in ("failed", "cancelled"):
        for call in taken:
            if not evidence.faults.near(call.at):
                what = f"a delivery {row.state} although its endpoint took it, without a fault"
                yield Violation(8, what, row.tenant, row.job)
    # An attempt is charged for a call that was made. Where none came at all, nobody listens at that address.
    if 0 < len(calls) < row.attempt and not evidence.faults.near_span(calls[0].at, row.finished_at or calls[-1].at):
        what = f"{row.attempt} attempts were charged and {len(calls)} calls came, without a fault"
        yield Violation(8, what, row.tenant, row.job)


def _calls(calls: Sequence[Received], ended: EndedJob | None, evidence: Evidence) -> Iterator[Violation]:
    taken_at: float | None = None
    for call in calls:
        if not call.signed:
            what = f"webhook {call.webhook_id} was not signed by its endpoint's secret"
            yield Violation(8, what, call.tenant, call.job)
        if ended is not None and (call.job != ended.job or call.event_type != f"job.{ended.state}"):
            what = f"webhook {call.webhook_id} tells {call.event_type} of {call.job}, but {ended.job} {ended.state}"
            yield Violation(8, what, call.tenant, call.job)
        if ended is not None and call.at < ended.finished_at - evidence.rules.slack_seconds:
            yield Violation(8, f"webhook {call.webhook_id} came before its job had ended", call.tenant, call.job)
        if taken_at is not None and not evidence.faults.near_span(taken_at, call.at):
            later = call.at - taken_at
            what = f"webhook {call.webhook_id} came again {later:.1f} s after it was taken, without a fault"
            yield Violation(8, what, call.tenant, call.job)
        if _is_taken(call):
            taken_at = call.at


def _is_taken(call: Received) -> bool:
    return 200 <= call.answered < 300


def _missing(evidence: Evidence) -> Iterator[Violation]:
    by_tenant: dict[str, list[EndpointRow]] = {}
    for endpoint in evidence.final.endpoints:
        # What a closed endpoint misses is no promise.
        if endpoint.until is None:
            by_tenant.setdefault(endpoint.tenant, []).append(endpoint)
    for ended in evidence.final.ended:
        for endpoint in by_tenant.get(ended.tenant, ()):
            if endpoint.created_at > ended.finished_at - evidence.rules.slack_seconds:
                continue
            if endpoint.event_types and f"job.{ended.state}" not in endpoint.event_types:
                continue
            if (ended.event_id, endpoint.endpoint) not in evidence.deliveries:
                what = f"event {ended.event_id} has no delivery to endpoint {endpoint.endpoint}"
                yield Violation(8, what, ended.tenant, ended.job)
