"""How to produce: records/s, CPU per record and the acknowledgement of a lone record, by call and by who polls.

`python -m tests.bench.kafka_produce [host:port]`; without an address a broker of its own. The case "busy" holds the
event loop for 2 ms at a time, as a service under load does; its CPU column includes that. Run it again before changing
how `barnabas.kafka.producer` serves its delivery reports.
"""

import asyncio
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from confluent_kafka import Producer as Client

from barnabas.contract.topics import Topic
from barnabas.kafka import client_settings
from barnabas.kafka.admin import Admin
from barnabas.kafka.producer import Producer
from barnabas_local.kafka import Kafka

VALUE = b"x" * 74
KEYS = [secrets.token_hex(18).encode() for _ in range(50)]
BATCH_RECORDS = 500
IN_FLIGHT = 4


class PolledByThread:
    """The usual way: a thread in `poll`, one call to the loop per round."""

    def __init__(self, bootstrap: str, *, batch_call: bool) -> None:
        self._client: Any = Client(client_settings.producer(bootstrap, "bench", delivery_timeout_seconds=60))
        self._batch_call = batch_call
        self._loop = asyncio.get_running_loop()
        self._done: list[list[Any]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def start_send(self, topic: str, records: list[tuple[bytes, bytes, None]]) -> "asyncio.Future[None]":
        holder: list[Any] = [len(records), self._loop.create_future()]

        def report(_error: Any, _record: Any) -> None:
            self._done.append(holder)

        if self._batch_call:
            self._client.produce_batch(topic, [{"key": k, "value": v} for k, v, _ in records], on_delivery=report)
        else:
            for key, value, _ in records:
                self._client.produce(topic, value, key, on_delivery=report)
        future: asyncio.Future[None] = holder[1]
        return future

    async def close(self) -> None:
        self._closing = True
        await asyncio.to_thread(self._thread.join)

    def _poll(self) -> None:
        while not self._closing:
            self._client.poll(0.1)
            if self._done:
                done, self._done = self._done, []
                self._loop.call_soon_threadsafe(self._resolve, done)

    def _resolve(self, done: list[list[Any]]) -> None:
        for holder in done:
            holder[0] -= 1
            if holder[0] == 0:
                holder[1].set_result(None)


async def measure(name: str, producer: Any, topic: str, *, busy: bool) -> None:
    stop = asyncio.Event()
    burning = asyncio.create_task(_burn(stop)) if busy else None
    await producer.start_send(topic, [(KEYS[0], VALUE, None)])
    alone = []
    for _ in range(60):
        started = time.perf_counter()
        await producer.start_send(topic, [(KEYS[0], VALUE, None)])
        alone.append((time.perf_counter() - started) * 1e3)
    batch = [(KEYS[number % len(KEYS)], VALUE, None) for number in range(BATCH_RECORDS)]
    count = 40 if busy else 200
    in_flight: list[asyncio.Future[None]] = []
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        in_flight.append(producer.start_send(topic, batch))
        if len(in_flight) == IN_FLIGHT:
            await in_flight.pop(0)
    await asyncio.gather(*in_flight)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    stop.set()
    if burning is not None:
        await burning
    records = count * BATCH_RECORDS
    print(
        f"{'busy' if busy else 'idle':5} {name:32}"
        f" lone p50 {statistics.median(alone):6.2f} ms  max {max(alone):8.2f} ms"
        f"  {records / seconds:9,.0f} records/s  {cpu / records * 1e6:6.2f} us CPU/record",
        flush=True,
    )


async def _burn(stop: asyncio.Event) -> None:
    while not stop.is_set():
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)


async def main() -> None:
    async with _broker() as bootstrap, Admin(bootstrap) as admin:
        topic = f"bench.{secrets.token_hex(4)}"
        await admin.ensure_topics(topics=[Topic(topic, "tenant", 3_600_000)])
        for busy in (False, True):
            for name, batch_call in (("produce, thread polls", False), ("produce_batch, thread polls", True)):
                threaded = PolledByThread(bootstrap, batch_call=batch_call)
                await measure(name, threaded, topic, busy=busy)
                await threaded.close()
            async with Producer(bootstrap) as ours:
                await measure("produce, loop polls (ours)", ours, topic, busy=busy)
        await admin.delete_topics([topic])


@asynccontextmanager
async def _broker() -> AsyncIterator[str]:
    if len(sys.argv) > 1:
        yield sys.argv[1]
        return
    with tempfile.TemporaryDirectory() as directory:
        kafka = Kafka(Path(directory) / "kafka", Path(directory) / "kafka.log", heap_mb_max=512)
        await kafka.start()
        try:
            yield kafka.bootstrap
        finally:
            await kafka.stop(at_once=True)


if __name__ == "__main__":
    uvloop.run(main())
