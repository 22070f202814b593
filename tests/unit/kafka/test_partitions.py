"""What a record is taken to weigh, and headers that can't be read."""

from typing import Any

import pytest

from barnabas.kafka.partitions import ConsumedRecord, Headers, headers_of, size_of


def record(key: bytes | None, value: bytes | None, headers: Headers = ()) -> ConsumedRecord:
    return ConsumedRecord("t", 0, 0, key, value, headers, 0, 1)


def test_a_record_weighs_its_key_value_and_headers() -> None:
    plain = size_of([record(b"key", b"value"), record(None, None)])

    assert plain == 8
    # Names and values, and what a header takes in memory though it holds nothing.
    assert size_of([record(b"key", b"value", (("name", b"x" * 100),))]) > plain + 104
    assert size_of([record(None, None, (("", None),) * 1_000)]) > 100_000


class _Message:
    """As the library's, whose `headers` may raise."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def headers(self) -> Any:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


@pytest.mark.parametrize(
    "error",
    [SystemError("returned a result with an exception set"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")],
)
def test_headers_that_cannot_be_read_are_none(error: Exception) -> None:
    assert headers_of(_Message(error)) == ()


def test_headers_are_as_they_came() -> None:
    assert headers_of(_Message([("a", b"1"), ("a", None)])) == (("a", b"1"), ("a", None))
    assert headers_of(_Message(None)) == ()
