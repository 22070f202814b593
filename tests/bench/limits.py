"""The machine's own limits, on the very servers that the system ran on, minutes later."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.bench.figures import Figure, median
from tests.bench.limit_kafka import KafkaLimit, KafkaLimitOrder
from tests.bench.limit_postgres import PostgresOrder
from tests.bench.system import System, superuser, superuser_dsn
from tests.support.stack import Stack

_DATABASE = "bench_limit"


async def measure(system: System, *, windows: int, window_seconds: float) -> list[Figure]:
    """Raw batched statements, raw produce and consume."""
    async with _empty_database(system.stack) as dsn:
        jobs = await system.generate(
            "tests.bench.limit_postgres",
            PostgresOrder(dsn=dsn, windows=windows, window_seconds=window_seconds),
            list[float],
        )
    records = await system.generate(
        "tests.bench.limit_kafka",
        KafkaLimitOrder(kafka=system.stack.told["kafka"], windows=windows, window_seconds=window_seconds),
        KafkaLimit,
    )
    return [
        median(
            "limit.postgres",
            "limit: raw batched Postgres path, batch 500, 2 connections",
            "jobs/s",
            jobs,
            more_is_better=True,
        ),
        median("limit.kafka_produce", "limit: raw produce, 1 KB", "records/s", records.produce, more_is_better=True),
        median(
            "limit.kafka_consume", "limit: raw consume and decode", "records/s", records.consume, more_is_better=True
        ),
    ]


@asynccontextmanager
async def _empty_database(stack: Stack) -> AsyncIterator[str]:
    """A database beside the system's, on its server; thrown away."""
    async with superuser(stack, database="postgres") as connection:
        await connection.execute(f"CREATE DATABASE {_DATABASE}")
        try:
            yield superuser_dsn(stack, database=_DATABASE)
        finally:
            await connection.execute(f"DROP DATABASE {_DATABASE} WITH (FORCE)")
