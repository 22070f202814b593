"""The public port's socket: one's own unless both say that they share it."""

import selectors
import socket

import pytest

from barnabas.errors import SettingsError
from barnabas_ingest.listener import listen


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def test_two_that_share_a_port_both_get_connections_and_one_that_ended_gets_none() -> None:
    with listen("127.0.0.1", 0, shared=True) as first:
        port = port_of(first)
        with listen("127.0.0.1", port, shared=True) as second:
            both = _taken(port, first, second, count=60)
        alone = _taken(port, first, count=20)

    # A share below it has a chance of one in 10**12.
    assert min(both) >= 5
    assert alone == [20]


@pytest.mark.parametrize(("held", "wanted"), [(False, False), (True, False), (False, True)])
def test_a_port_that_somebody_has_for_himself_is_refused(held: bool, wanted: bool) -> None:
    with listen("127.0.0.1", 0, shared=held) as first, pytest.raises(SettingsError, match="BARNABAS_HTTP_PORT"):
        listen("127.0.0.1", port_of(first), shared=wanted)


def _taken(port: int, *listeners: socket.socket, count: int) -> list[int]:
    """How many of so many connections each listener was given."""
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    taken = dict.fromkeys(listeners, 0)
    with selectors.DefaultSelector() as waiting:
        for listener in listeners:
            waiting.register(listener, selectors.EVENT_READ)
        # Its client may have a connection a moment before its listener has.
        while sum(taken.values()) < count:
            ready = waiting.select(timeout=60)
            assert ready, f"only {taken.values()} of {count} arrived"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.accept()[0].close()
                taken[key.fileobj] += 1
    for client in clients:
        client.close()
    return list(taken.values())
