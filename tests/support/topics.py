"""Reading a topic in a test: from its end on, until the record that is waited for."""

import asyncio
import uuid
from collections.abc import Callable
from types import TracebackType

from barnabas.kafka.consumer import Consumer
from barnabas.kafka.partitions import ConsumedRecord
from tests.support.eventually import eventually


class TopicReader:
    """Everything that is written to a topic from the start of the block on."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self.records: list[ConsumedRecord] = []

    async def __aenter__(self) -> "TopicReader":
        # A group of its own that begins at the beginning: older records do no harm, since tests look for their own ids.
        self._consumer = Consumer(self._bootstrap, group=f"test-{uuid.uuid4()}", topics=[self._topic])
        await self._consumer.__aenter__()
        await eventually(lambda: bool(self._consumer.assignment))
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._consumer.close()

    async def until(self, wanted: Callable[[ConsumedRecord], bool], timeout: float = 60.0) -> ConsumedRecord:
        """The first record that is wanted."""

        def find() -> ConsumedRecord | None:
            if self._task.done():
                self._task.result()
            return next((record for record in self.records if wanted(record)), None)

        found = await eventually(find, timeout=timeout)
        assert found is not None
        return found

    async def _read(self) -> None:
        while True:
            self.records += await self._consumer.get(1_000, 0.5)
