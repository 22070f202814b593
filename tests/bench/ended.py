"""How many jobs have ended, read where it costs the system next to nothing: the end offsets of the results topic."""

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import admin as _untyped

from barnabas.contract.topics import RESULTS

_LIMIT_SECONDS = 10.0
# A new broker on a busy machine takes its time to make a few hundred partitions.
_LEADERS_SECONDS = 60.0
_PAUSE_SECONDS = 0.2
_NO_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)
# The library exports this name without types.
_OffsetSpec: Any = _untyped.OffsetSpec  # type: ignore[attr-defined]
_END = _OffsetSpec.latest()


class EndedJobs:
    """Counts result events. Blocking: call it in a thread."""

    def __init__(self, bootstrap: str) -> None:
        self._client: Any = _untyped.AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._wanted = {TopicPartition(RESULTS.name, number): _END for number in range(RESULTS.partitions)}

    def offsets(self) -> dict[int, int]:
        """The next offset of each partition."""
        deadline = time.monotonic() + _LEADERS_SECONDS
        while True:
            answers = self._client.list_offsets(self._wanted, request_timeout=_LIMIT_SECONDS)
            try:
                return {partition.partition: answer.result().offset for partition, answer in answers.items()}
            except KafkaException as error:
                # A partition made a moment ago may not have its leader yet.
                if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def count(self) -> int:
        """Events published since the topic was made."""
        return sum(self.offsets().values())
