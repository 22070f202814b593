"""Signatures: the specification's vector, the official library, and everything that must not pass."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from barnabas.domain.signing import (
    BadSignatureError,
    BadSigningSecretError,
    decode_secret,
    headers,
    make_secret,
    plain_signature,
    sign,
    verify,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = make_secret(bytes(range(32)))
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

secret_bytes = st.binary(min_size=24, max_size=64)
ids = st.uuids().map(str)


def received(**changes: str) -> dict[str, str]:
    sent = {"webhook-id": ID, "webhook-timestamp": str(TIMESTAMP), "webhook-signature": SIGNATURE}
    return sent | {name.replace("_", "-"): value for name, value in changes.items()}


def test_it_is_the_vector_of_the_specification() -> None:
    assert sign(SECRET, ID, TIMESTAMP, BODY) == SIGNATURE


@given(secret_bytes, ids, st.integers(0, 2**33), st.binary(max_size=200))
def test_the_official_library_signs_the_same(random: bytes, msg_id: str, timestamp: int, body: bytes) -> None:
    # The official one signs text; any bytes go through latin-1 for us only, so it is asked about the text it can have.
    text = body.decode("latin-1")
    secret = make_secret(random)

    official = Webhook(secret).sign(msg_id, datetime.fromtimestamp(timestamp, tz=UTC), text)

    assert sign(secret, msg_id, timestamp, text.encode()) == official


@given(st.lists(secret_bytes, min_size=1, max_size=3, unique=True), ids, st.text(max_size=50))
def test_the_official_library_verifies_what_we_send_with_any_live_secret(
    randoms: list[bytes], msg_id: str, text: str
) -> None:
    secrets = [make_secret(random) for random in randoms]
    timestamp = int(datetime.now(tz=UTC).timestamp())
    body = b'"' + base64.b64encode(text.encode()) + b'"'

    sent = headers(secrets, msg_id, timestamp, body)

    for secret in secrets:
        assert Webhook(secret).verify(body, sent) == base64.b64encode(text.encode()).decode()


@given(st.lists(secret_bytes, min_size=1, max_size=4, unique=True), ids, st.binary(max_size=100), st.data())
def test_what_we_send_we_verify_with_any_of_its_secrets_and_with_no_other(
    randoms: list[bytes], msg_id: str, body: bytes, data: st.DataObject
) -> None:
    secrets = [make_secret(random) for random in randoms]
    live = data.draw(st.lists(st.sampled_from(secrets), min_size=1, unique=True))

    sent = headers(live, msg_id, TIMESTAMP, body)

    for secret in secrets:
        if secret in live:
            verify([OTHER, secret], sent, body, now=TIMESTAMP)
        else:
            with pytest.raises(BadSignatureError):
                verify([secret], sent, body, now=TIMESTAMP)


def test_a_receiver_reads_headers_in_any_case() -> None:
    verify([SECRET], {name.title(): value for name, value in received().items()}, BODY, now=TIMESTAMP)


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_id": "msg_other"},
        {"webhook_id": ""},
        {"webhook_id": "\ud800"},
        {"webhook_timestamp": str(TIMESTAMP + 1)},
        {"webhook_timestamp": ""},
        {"webhook_timestamp": f"{TIMESTAMP}.0"},
        {"webhook_timestamp": f"+{TIMESTAMP}"},
        {"webhook_timestamp": "1" * 100_000},
        {"webhook_timestamp": "\u0661" * 10},
        {"webhook_signature": ""},
        {"webhook_signature": SIGNATURE.removeprefix("v1,")},
        {"webhook_signature": SIGNATURE.replace("v1,", "v2,")},
        {"webhook_signature": SIGNATURE.replace("v1,", "v1a,")},
        {"webhook_signature": SIGNATURE[:-5] + "aaa="},
        {"webhook_signature": "v1,"},
        {"webhook_signature": "v1,\u00e9"},
        {"webhook_signature": "v1,not base64"},
        {"webhook_signature": "v1 " * 10_000},
    ],
)
def test_a_changed_header_does_not_pass(changes: dict[str, str]) -> None:
    with pytest.raises(BadSignatureError):
        verify([SECRET], received(**changes), BODY, now=TIMESTAMP)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_does_not_pass(missing: str) -> None:
    sent = received()
    del sent[missing]

    with pytest.raises(BadSignatureError):
        verify([SECRET], sent, BODY, now=TIMESTAMP)


@pytest.mark.parametrize("body", [b"", BODY + b" ", BODY.replace(b"4", b"5")])
def test_a_changed_body_does_not_pass(body: bytes) -> None:
    with pytest.raises(BadSignatureError):
        verify([SECRET], received(), body, now=TIMESTAMP)


@pytest.mark.parametrize(("seconds", "passes"), [(0, True), (300, True), (301, False), (-300, True), (-301, False)])
def test_five_minutes_either_way_are_tolerated(seconds: int, passes: bool) -> None:
    if passes:
        verify([SECRET], received(), BODY, now=TIMESTAMP + seconds)
    else:
        with pytest.raises(BadSignatureError, match="too far"):
            verify([SECRET], received(), BODY, now=TIMESTAMP + seconds)


def test_unknown_versions_and_broken_entries_are_skipped() -> None:
    entries = f"v1a,abcd v9,zzzz v1,!!!! nonsense {SIGNATURE}"

    verify([SECRET], received(webhook_signature=entries), BODY, now=TIMESTAMP)


def test_without_a_secret_nothing_passes() -> None:
    with pytest.raises(BadSignatureError):
        verify([], received(), BODY, now=TIMESTAMP)


def test_the_plain_signature_is_the_hex_hmac_of_the_body_under_the_same_key() -> None:
    expected = hmac.new(base64.b64decode(SECRET.removeprefix("whsec_")), BODY, hashlib.sha256).hexdigest()

    assert plain_signature(SECRET, BODY) == f"sha256={expected}"
    assert headers([SECRET, OTHER], ID, TIMESTAMP, BODY)["X-Signature"] == f"sha256={expected}"


def test_a_retry_has_the_same_id_and_a_signature_of_its_own() -> None:
    first, second = headers([SECRET], ID, TIMESTAMP, BODY), headers([SECRET], ID, TIMESTAMP + 5, BODY)

    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"] != second["webhook-signature"]


@given(secret_bytes)
def test_a_secret_reads_back_as_it_was_made(random: bytes) -> None:
    assert decode_secret(make_secret(random)) == random


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_!!!!",
        "whsec_" + "A" * 31,
        make_secret(bytes(24)).removeprefix("whsec_"),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 24).decode(),
        "whsec_\u00e9" + "A" * 31,
    ],
)
def test_what_is_no_secret_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(BadSigningSecretError) as refused:
        decode_secret(secret)

    assert str(refused.value) == "A signing secret must be whsec_ and the base64 of 24 to 64 bytes."
    assert refused.value.__cause__ is None
