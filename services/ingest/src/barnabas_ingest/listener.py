"""The socket of the public port: taken before anything else is opened, so that a taken port ends the start at once."""

import socket

from barnabas.errors import SettingsError

_BACKLOG = 2_048


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A listening socket; with `shared`, other processes of this user that say so too may listen on the same port.

    The kernel gives each new connection to one of them, and to nobody that has ended. What an ending process had not
    taken from its own line is reset, as by any server that ends; a client tries again.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, because asyncio switches Nagle's algorithm off only where it is: 40 ms for each answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"BARNABAS_HTTP_PORT={port}: {error.strerror}; for example BARNABAS_HTTP_PORT=0 takes a free one"
        ) from error
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener
