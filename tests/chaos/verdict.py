"""The verdict on a chaos run: what was accepted is joined with the final rows and with what the endpoint received."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from barnabas.domain.jobs import JobState
from tests.chaos.accepts import Accepted, Wish


async def violations(
    database: Any, wanted: Sequence[Wish], accepted: Accepted, received: Counter[str], *, with_endpoints: bool
) -> list[str]:
    """Every promise that was broken, in words; empty when all of them held."""
    found = list(accepted.wrong)
    keys = await database.fetch("SELECT key, job_id FROM idempotency_keys")
    stored = {row["key"]: str(row["job_id"]) for row in keys}
    for wish in wanted:
        if wish.key not in stored:
            found.append(f"lost: {wish.key} has no job")
        elif wish.key in accepted.ids and accepted.ids[wish.key] != stored[wish.key]:
            found.append(f"{wish.key} was answered {accepted.ids[wish.key]} and is stored as {stored[wish.key]}")
    open_jobs = await database.fetchval("SELECT count(*) FROM jobs")
    if open_jobs:
        found.append(f"{open_jobs} jobs are open")
    rows = await database.fetch("SELECT job_id, event_id, state, attempt FROM job_results")
    ends = Counter(str(row["job_id"]) for row in rows)
    found += [f"{job} ended {count} times" for job, count in ends.items() if count != 1]
    if len(ends) != len(wanted):
        found.append(f"{len(wanted)} jobs were wanted and {len(ends)} ended")
    states = {str(row["job_id"]): JobState(row["state"]).label for row in rows}
    for wish in wanted:
        state = states.get(stored.get(wish.key, ""))
        if state != wish.expected:
            found.append(f"{wish.key} should have {wish.expected} and is {state}")
    if with_endpoints:
        events = {str(row["event_id"]) for row in rows}
        found += [f"event {event} was never delivered" for event in events - received.keys()]
        found += [f"event {event} was delivered and never happened" for event in received.keys() - events]
        unfinished = await database.fetchval("SELECT count(*) FROM deliveries WHERE state <> 4")
        if unfinished:
            found.append(f"{unfinished} deliveries did not succeed")
    for table in ("lease_batches", "waiting", "timers", "outbox"):
        left = await database.fetchval(f"SELECT count(*) FROM {table}")
        if left:
            found.append(f"{left} rows are left in {table}")
    return found
