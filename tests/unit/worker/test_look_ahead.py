"""What a worker may commit of what it has read."""

from uuid import UUID

from barnabas.kafka.partitions import ConsumedRecord, TopicPartition
from barnabas_worker.look_ahead import Records

_FIRST, _SECOND = TopicPartition("jobs", 0), TopicPartition("jobs", 1)


def _record(at: TopicPartition, offset: int) -> ConsumedRecord:
    return ConsumedRecord(at.topic, at.partition, offset, str(UUID(int=1)).encode(), b"", (), 0, 1)


def test_a_partition_that_goes_takes_no_offsets_of_those_that_stay() -> None:
    records = Records(bytes_max=10_000)
    read = [_record(_FIRST, 4), _record(_SECOND, 7)]
    records.note(read)
    for one in read:
        records.skip(one)

    gone = records.take_commits(only=[_FIRST])
    records.forget([_FIRST])

    assert gone == {_FIRST: 5}
    assert records.take_commits() == {_SECOND: 8}
    assert records.take_commits() == {}
