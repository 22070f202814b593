"""A record whose headers have names that Python's clients refuse to write: any other client may write them."""

import ctypes
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_size_t, c_void_p

from confluent_kafka import cimpl

# From librdkafka's rdkafka.h.
_PRODUCER = 0
_END, _TOPIC, _VALUE, _KEY, _FLAGS, _HEADER = 0, 1, 4, 5, 7, 9
_COPY = 2


def produce_raw(bootstrap: str, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Write one record and wait until Kafka has it; takes a moment, so not on the event loop."""
    library = ctypes.CDLL(cimpl.__file__)
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = c_void_p
    reason = ctypes.create_string_buffer(512)
    conf = c_void_p(library.rd_kafka_conf_new())
    set_to = (conf, b"bootstrap.servers", bootstrap.encode(), reason, c_size_t(512))
    assert library.rd_kafka_conf_set(*set_to) == 0, reason.value
    client = c_void_p(library.rd_kafka_new(c_int(_PRODUCER), conf, reason, c_size_t(512)))
    assert client.value, reason.value
    try:
        told: list[object] = [c_int(_TOPIC), c_char_p(topic.encode()), c_int(_FLAGS), c_int(_COPY)]
        told += [c_int(_KEY), c_char_p(key), c_size_t(len(key)), c_int(_VALUE), c_char_p(value), c_size_t(len(value))]
        for name, content in headers:
            told += [c_int(_HEADER), c_char_p(name), c_char_p(content), c_size_t(len(content))]
        assert library.rd_kafka_producev(client, *told, c_int(_END)) == 0
        assert library.rd_kafka_flush(client, c_int(60_000)) == 0
    finally:
        library.rd_kafka_destroy(client)
