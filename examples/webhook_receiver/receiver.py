"""Receive the events of ended jobs: verify each signature, answer fast, count no event twice."""
# ruff: noqa: T201 - printing is what this script is for

import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from barnabas.client.api import Client

# A job's event has little more than its result, which has a megabyte at most.
BODY_BYTES_MAX = 2 << 20


def make_server(port: int, secret: str, on_event: Callable[[dict[str, Any]], None]) -> HTTPServer:
    """A server that hands each event to `on_event`, once, if it is signed with `secret`."""
    webhook = Webhook(secret)
    # A real receiver keeps the ids in its database, in the transaction in which it acts on the event.
    seen: set[str] = set()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if length > BODY_BYTES_MAX:
                self.send_error(413)
                return
            body = self.rfile.read(length)
            try:
                # The bytes as they came: JSON that was parsed and written again has another signature.
                event = webhook.verify(body, dict(self.headers))
            except WebhookVerificationError:
                self.send_error(401)
                return
            # Deliveries are at least once; the id is the same each time.
            event_id = self.headers["webhook-id"]
            if event_id not in seen:
                on_event(event)
                seen.add(event_id)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """The events are printed; the requests needn't be."""

    return HTTPServer(("127.0.0.1", port), Receiver)


def show(event: dict[str, Any]) -> None:
    """Print one event."""
    job = event["data"]
    print(f"{event['type']}: {job['type']} {job['id']} -> {job.get('result') or job.get('error')}", flush=True)


def main(port: str = "9000", stack_file: str = ".barnabas/stack.json") -> None:
    """Register an endpoint at the local stack and print what comes, until Ctrl-C."""
    stack = json.loads(Path(stack_file).read_text())
    with Client(stack["api_url"], stack["api_key"]) as client:
        # Its secret is shown this one time. Keep it like a password.
        endpoint = client.create_endpoint(f"http://127.0.0.1:{port}/webhooks")
        assert endpoint.secret is not None, "the answer to a creation has the secret"
        server = make_server(int(port), endpoint.secret, show)
        print(f"listening on port {port}; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.server_close()
            client.delete_endpoint(endpoint.id)


if __name__ == "__main__":
    main(*sys.argv[1:])
