"""Free ports on loopback, outside the range from which the kernel serves outgoing connections.

A port that `bind(0)` hands out lies in the ephemeral range and may be some client's source port a second later; a
server that has to come back on the port it had (after a crash, on the next day) must not live there.
"""

import random
import socket

from barnabas_local.errors import LocalStackError, PortTakenError

LOOPBACK = "127.0.0.1"

# Linux hands out 32768-60999 and macOS 49152-65535 to clients; common servers live below 20000.
_RANGE = range(20_000, 32_000)
_TRIES = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of loopback right now."""
    with socket.socket() as probe:
        # As servers do: connections of a former server in TIME_WAIT don't make the port a taken one.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port(*, keep: int = 0, avoid: frozenset[int] = frozenset()) -> int:
    """A port that is free now: `keep` if it (still) is, else one at random that isn't in `avoid`."""
    if keep and keep not in avoid and is_free(keep):
        return keep
    for _ in range(_TRIES):
        port = random.choice(_RANGE)
        if port not in avoid and is_free(port):
            return port
    raise LocalStackError(f"no free port found between {_RANGE.start} and {_RANGE.stop}")


def require_free(port: int, *, wanted_by: str) -> None:
    """Raise `PortTakenError` unless `port` is free."""
    if not is_free(port):
        raise PortTakenError(port=port, wanted_by=wanted_by)
