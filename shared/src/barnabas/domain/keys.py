"""API keys as text: `bk_<key id>_<secret>_<check>`.

Ingest makes and checks them. The check digits let a typo, or another product's key, be refused without asking the
database, and let scanners recognise a leaked one. Only the SHA-256 of the secret is ever stored: it has at least 160
random bits, so a slow hash would add nothing.
"""

import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Final
from uuid import UUID

SECRET_BYTES_MIN: Final = 20
SECRET_BYTES_MAX: Final = 64

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_BITS_PER_DIGIT: Final = log2(len(_DIGITS))

# A CRC-32 has 32 bits: six digits of base 62.
_CHECK_DIGITS: Final = 6
# 27 digits hold 160 bits, 86 hold 512.
_PATTERN: Final = re.compile(r"bk_([0-9a-f]{32})_([0-9A-Za-z]{27,86})_([0-9A-Za-z]{6})")


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A well-formed key. Whether it is a live one only the stored hash can tell."""

    key_id: UUID
    secret: bytes = field(repr=False)


def make_key(key_id: UUID | bytes, secret: bytes) -> str:
    """The key's text, shown once. `key_id` is a UUID or its 16 bytes, `secret` 20 to 64 random bytes."""
    assert SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX, "a secret has 20 to 64 bytes"
    identity = key_id if isinstance(key_id, UUID) else UUID(bytes=key_id)
    width = ceil(len(secret) * 8 / _BITS_PER_DIGIT)
    body = f"bk_{identity.hex}_{_encode(int.from_bytes(secret), width)}"
    return f"{body}_{_check(body)}"


def parse_key(text: str) -> ParsedKey | None:
    """The parts of a key, or None when its form or its check digits are wrong. Asks nobody."""
    match = _PATTERN.fullmatch(text)
    if match is None or not hmac.compare_digest(_check(text[: match.end(2)]), match[3]):
        return None
    length = int(len(match[2]) * _BITS_PER_DIGIT / 8)
    value = _decode(match[2])
    # Two texts for one secret would be two keys with one hash: only the shortest spelling counts.
    if value >> (length * 8) or len(match[2]) != ceil(length * 8 / _BITS_PER_DIGIT):
        return None
    return ParsedKey(UUID(hex=match[1]), value.to_bytes(length))


def hash_secret(secret: bytes) -> bytes:
    """What is stored: 32 bytes of SHA-256."""
    return hashlib.sha256(secret).digest()


def matches(stored: bytes, secret: bytes) -> bool:
    """Whether the secret has that stored hash, in a time that doesn't tell how much of it fits."""
    return hmac.compare_digest(stored, hash_secret(secret))


def prefix_of(key: str) -> str:
    """The part that may be shown and logged: the product's mark and the key's id, nothing of the secret."""
    return key[: len("bk_") + 32]


def _check(body: str) -> str:
    return _encode(zlib.crc32(body.encode("ascii")), _CHECK_DIGITS)


def _encode(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, digit = divmod(value, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _decode(text: str) -> int:
    value = 0
    for digit in text:
        value = value * len(_DIGITS) + _VALUES[digit]
    return value
