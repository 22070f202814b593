"""What can go wrong with the local stack, said so that the reader knows what to do next."""

from barnabas.errors import RejectedError


class LocalStackError(RejectedError):
    """The local stack can't do what was asked."""

    code = "local_stack"


class PortTakenError(LocalStackError):
    """Another program listens on the port."""

    code = "port_taken"

    def __init__(self, *, port: int, wanted_by: str) -> None:
        super().__init__(
            f"port {port}, wanted by {wanted_by}, is taken by another program: stop that one, "
            "choose another with --port N, or let a free one be found with --port 0"
        )
        self.port = port
        self.wanted_by = wanted_by


class ServerStartError(LocalStackError):
    """A server ended, or stayed silent, before it was ready."""

    code = "server_start"

    def __init__(self, *, name: str, reason: str, log_tail: str) -> None:
        shown = f"; the end of its log:\n{log_tail}" if log_tail else ""
        super().__init__(f"{name} did not start: {reason}{shown}")
        self.name = name
        self.reason = reason
