"""Stands in for a service where only the supervisor is under test: its ops port, and for ingest the admin calls.

Run as `python fake_service.py <kind>`. It ends on SIGTERM as a service does; with its kind in FAKE_SERVICE_FAILS it
ends at once.
"""

import itertools
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_COUNTER = itertools.count(1)


class _Ops(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(200, {})

    def _answer(self, status: int, body: object) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class named it
        """A log of requests would hide what the tests look for."""


class _Ingest(_Ops):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.headers["authorization"] != f"Bearer {os.environ['BARNABAS_ADMIN_KEY']}":
            self._answer(401, {})
        elif self.path.endswith("/keys"):
            self._answer(201, {"id": "k", "key": f"key-{next(_COUNTER)}-{os.getpid()}", "prefix": "key"})
        else:
            self._answer(201, {"id": f"tenant-{os.getpid()}", "name": "demo"})


def main(kind: str) -> None:
    """Serve until SIGTERM."""
    if os.environ.get("FAKE_SERVICE_FAILS") == kind:
        sys.exit("the fake was told to fail")
    servers = [ThreadingHTTPServer(("127.0.0.1", int(os.environ["BARNABAS_OPS_PORT"])), _Ops)]
    if kind == "ingest":
        servers.append(ThreadingHTTPServer(("127.0.0.1", int(os.environ["BARNABAS_HTTP_PORT"])), _Ingest))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    main(sys.argv[1])
