"""When a crash run has come to rest, and what there is then: every row, every record, every line of the ledger."""

from typing import Any

import msgspec

from tests.chaos.checker import check
from tests.chaos.crash.system import System
from tests.chaos.final import Final, KeyRow
from tests.chaos.ledger import Event, read_ledgers
from tests.chaos.rows import count_left, read_final
from tests.chaos.violation import Rules, Violation
from tests.support.eventually import eventually

# What has to be found by somebody else takes a lease, the reaper, the relay; each may be killed on the way.
_REST_SECONDS = 600.0
# A crash run is one fault after the other, and on a busy machine what they lead to comes late.
RULES = Rules(fault_window_seconds=3600.0)

_UNKEYED = """
SELECT payload.tenant_id::text, convert_from(payload.payload, 'UTF8')::jsonb ->> 'key', payload.job_id::text
  FROM job_payloads AS payload
 WHERE NOT EXISTS (SELECT 1 FROM idempotency_keys AS known
                    WHERE known.tenant_id = payload.tenant_id AND known.job_id = payload.job_id)"""

# Who holds what is left, and whether anybody will take it back.
_HELD = """
SELECT batch.batch_id, batch.worker_id, batch.claimed_at, batch.tenant_ids, batch.ref_ids, batch.endpoint_ids,
       worker.service, worker.lease_until, clock_timestamp() AS now
  FROM lease_batches AS batch
  LEFT JOIN workers AS worker USING (worker_id)
 LIMIT 10"""


async def until_settled(system: System, database: Any, *, keyed: int, timeout: float = _REST_SECONDS) -> None:
    """Wait until all is stored that was accepted with a key, has ended, and was told to every endpoint."""

    async def left() -> dict[str, int]:
        # A worker that fetched from a backlog has half a minute to claim; one that died won't, so its time is up. But
        # not before a fetch has had its chance to clear away, after five seconds, what doesn't wait any more.
        await database.execute(
            "UPDATE waiting SET woken_at = woken_at - interval '30 seconds'"
            " WHERE woken_at BETWEEN now() - interval '29 seconds' AND now() - interval '10 seconds'"
        )
        # First: what is stored only after the others were counted is none of their count.
        unstored = keyed - await database.fetchval("SELECT count(*) FROM idempotency_keys")
        found = await count_left(database) | {"unstored": unstored}
        return {table: count for table, count in found.items() if count}

    await system.until_ready()
    try:
        await eventually(left, until=lambda found: not found, timeout=timeout)
    except AssertionError as error:
        for row in await database.fetch(_HELD):
            error.add_note(f"held: {dict(row)}")
        raise


async def judge(system: System, database: Any, *, rules: Rules = RULES) -> tuple[list[Event], Final, list[Violation]]:
    """The ledger, the final state, and every promise that was broken."""
    final = await read_final(database, system.kafka)
    # Jobs that were submitted without an idempotency key carry their name in the payload.
    unkeyed = [KeyRow(*row) for row in await database.fetch(_UNKEYED)]
    final = msgspec.structs.replace(final, keys=[*final.keys, *unkeyed])
    events = read_ledgers(system.ledger)
    return events, final, check(events, final, rules)
