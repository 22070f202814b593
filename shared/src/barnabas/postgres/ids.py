"""Ids: read as the database's driver makes them, five times as quick as the standard library; minted by its clock.

A UUID of the standard library costs 2.4 us to make and 0.16 us to hash, asyncpg's own 0.5 and 0.05; a record's
way into a worker makes and hashes several.
"""

import os
from uuid import UUID

from asyncpg.pgproto import pgproto

from barnabas.domain.ids import Uuid7Source
from barnabas.runtime.clock import DatabaseClock


def make_id(value: bytes) -> UUID:
    """The id of these 16 bytes; a subclass of `uuid.UUID`."""
    made: UUID = pgproto.UUID(value)
    return made


def id_source(clock: DatabaseClock) -> Uuid7Source:
    """Mints ids by the database's time."""
    return Uuid7Source(now_ms=clock.now_ms, random_bytes=os.urandom, make=make_id)
