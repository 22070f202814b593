"""The examples, as far as they run without a stack."""

import json
import threading
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from examples.direct_kafka.produce import record
from examples.scoring.handlers import Customer
from examples.webhook_receiver.receiver import make_server
from standardwebhooks import Webhook

from barnabas.contract.intake import read_job
from barnabas.contract.topics import INTAKE
from barnabas.sdk.loading import load_app
from barnabas.sdk.testing import run

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_scoring_handler_scores() -> None:
    app = load_app("examples.scoring.handlers:app")

    assert run(app, "scoring", Customer(income=100)).value == {"points": 99}
    assert run(app, "scoring", {"income": 100, "debts": 100}).value == {"points": 50}
    assert run(app, "scoring", {"debts": 1}).error is not None


def test_the_receiver_takes_each_signed_event_once_and_nothing_else() -> None:
    events: list[dict[str, Any]] = []
    server = make_server(0, SECRET, events.append)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/webhooks"
    body = json.dumps({"type": "job.succeeded", "data": {"id": "1", "type": "echo"}})
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "event-1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("event-1", now, body),
    }
    try:
        statuses = [
            httpx.post(url, content=sent, headers=given, timeout=60).status_code
            for sent, given in ((body, headers), (body, headers), (body.replace("1", "2"), headers), (body, None))
        ]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)

    assert statuses == [204, 204, 401, 401]
    assert [event["type"] for event in events] == ["job.succeeded"]


def test_the_record_for_kafka_is_a_job_that_ingest_takes() -> None:
    tenant = UUID(int=7)
    made = record(str(tenant), "bnb_key", {"type": "echo", "payload": {"n": 1}}, idempotency_key="k")

    assert made["topic"] == INTAKE.name
    assert made["key"] == str(tenant).encode()
    assert read_job(made["value"]).payload == b'{"n": 1}'
    assert dict(made["headers"]) == {"authorization": b"bnb_key", "idempotency-key": b"k"}
