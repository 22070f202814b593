"""Signatures of webhooks: Standard Webhooks v1, and a plain HMAC of the body beside it.

The notifier signs each try anew with the time of that try; receivers verify. Nothing here keeps a secret longer than
the call. Source: Standard Webhooks specification 1.0.0, "Signature scheme".
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from barnabas.errors import RejectedError

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
PLAIN_HEADER: Final = "X-Signature"

SECRET_BYTES_MIN: Final = 24
SECRET_BYTES_MAX: Final = 64

# Five minutes either way, as the official libraries have it.
TOLERANCE_SECONDS: Final = 300

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the mark of a secret, not one
_VERSION: Final = "v1"


class BadSigningSecretError(RejectedError):
    """A signing secret must be whsec_ and the base64 of 24 to 64 bytes."""

    code = "bad_signing_secret"


class BadSignatureError(RejectedError):
    """A webhook's signature can't be trusted."""

    code = "bad_signature"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the signature can't be trusted: {reason}")
        self.reason = reason


def make_secret(random: bytes) -> str:
    """The secret's text from 24 to 64 random bytes, as receivers' libraries take it."""
    assert SECRET_BYTES_MIN <= len(random) <= SECRET_BYTES_MAX, "a secret has 24 to 64 bytes"
    return _SECRET_PREFIX + base64.b64encode(random).decode("ascii")


def decode_secret(secret: str) -> bytes:
    """The key: the decoded bytes behind `whsec_`; raises `BadSigningSecretError`, which never shows the secret."""
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        # Without its cause, which may quote the secret.
        raise BadSigningSecretError from None
    if not secret.startswith(_SECRET_PREFIX) or not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise BadSigningSecretError
    return key


def sign(secret: str, msg_id: str, timestamp: int, body: bytes) -> str:
    """One entry of `webhook-signature`: `v1,` and the base64 HMAC-SHA256 over id, time and the exact bytes sent.

    `timestamp` is in whole Unix seconds, the time of this try. Neither it nor the id may hold a dot, or the signed
    bytes could be cut in two ways.
    """
    assert "." not in msg_id, "a webhook id has no dot"
    return f"{_VERSION},{base64.b64encode(_v1(decode_secret(secret), msg_id, timestamp, body)).decode('ascii')}"


def plain_signature(secret: str, body: bytes) -> str:
    """The value of `X-Signature`: `sha256=` and the hex HMAC-SHA256 of the body under the same decoded key."""
    return "sha256=" + hmac.digest(decode_secret(secret), body, hashlib.sha256).hex()


def headers(secrets: Sequence[str], msg_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What a try sends, signed with every live secret, the newest first.

    While a secret rotates receivers of either one accept it. `X-Signature` has room for one: the newest.
    """
    assert secrets, "an endpoint has at least one live secret"
    return {
        ID_HEADER: msg_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(sign(secret, msg_id, timestamp, body) for secret in secrets),
        PLAIN_HEADER: plain_signature(secrets[0], body),
    }


def verify(
    secrets: Sequence[str],
    received: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> None:
    """Raise `BadSignatureError` unless one of `secrets` signed exactly this, not long ago.

    `received` are the request's headers in any case, `now` is in Unix seconds. Entries of an unknown version are
    skipped, so a sender may add one. Says nothing about repeats: the receiver remembers `webhook-id`.
    """
    lower = {name.lower(): value for name, value in received.items()}
    msg_id, stamp, entries = (lower.get(name, "") for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not msg_id or not stamp or not entries:
        raise BadSignatureError("a header is missing")
    # Longer than any time of day for the next 30,000 years; int() of a huge text is slow on purpose of the sender.
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise BadSignatureError("the timestamp is not a number")
    timestamp = int(stamp)
    if not abs(now - timestamp) <= tolerance_seconds:
        raise BadSignatureError("the timestamp is too far from now")
    wanted = [_v1(decode_secret(secret), msg_id, timestamp, body) for secret in secrets]
    if not any(hmac.compare_digest(want, got) for got in _v1_entries(entries) for want in wanted):
        raise BadSignatureError("no signature fits")


def _v1(key: bytes, msg_id: str, timestamp: int, body: bytes) -> bytes:
    return hmac.digest(key, b"%s.%d.%s" % (msg_id.encode("utf-8", "surrogatepass"), timestamp, body), hashlib.sha256)


def _v1_entries(header: str) -> list[bytes]:
    found = []
    # A sender has ten live secrets at most; a header with thousands of entries is not one to work through.
    for entry in header.split(" ")[:32]:
        version, _, text = entry.partition(",")
        if version != _VERSION:
            continue
        try:
            found.append(base64.b64decode(text.encode("ascii"), validate=True))
        except (binascii.Error, UnicodeEncodeError):
            continue
    return found
