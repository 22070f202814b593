"""API keys: made, read back, mistyped."""

import hashlib
import zlib
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from barnabas.domain.keys import hash_secret, make_key, matches, parse_key, prefix_of

KEY_ID = UUID("0190f3c2-8f00-7abc-9def-0123456789ab")
SECRET = bytes(range(20))
KEY = make_key(KEY_ID, SECRET)

secrets = st.binary(min_size=20, max_size=64)


def test_a_key_looks_like_this() -> None:
    mark, key_id, secret, check = KEY.split("_")

    assert (mark, key_id) == ("bk", "0190f3c28f007abc9def0123456789ab")
    assert len(secret) == 27  # 160 bits in base 62
    assert len(check) == 6
    assert (secret + check).isalnum()


@given(st.uuids(), secrets)
def test_a_key_reads_back_as_it_was_made(key_id: UUID, secret: bytes) -> None:
    parsed = parse_key(make_key(key_id, secret))

    assert parsed is not None
    assert (parsed.key_id, parsed.secret) == (key_id, secret)
    assert make_key(key_id.bytes, secret) == make_key(key_id, secret)


@given(st.integers(0, len(KEY) - 1), st.characters(codec="ascii"))
def test_one_wrong_character_is_noticed_without_asking_anyone(at: int, character: str) -> None:
    assume(KEY[at] != character)

    assert parse_key(KEY[:at] + character + KEY[at + 1 :]) is None


@given(st.integers(0, len(KEY) - 2))
def test_two_swapped_characters_are_noticed(at: int) -> None:
    assume(KEY[at] != KEY[at + 1])

    assert parse_key(KEY[:at] + KEY[at + 1] + KEY[at] + KEY[at + 2 :]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bk_",
        KEY[:-1],
        KEY + "0",
        " " + KEY,
        KEY + "\n",
        KEY.upper(),
        "Bearer " + KEY,
        KEY.replace("bk_", "sk_"),
        "bk_" + "0" * 100_000,
        KEY.replace("0", "\u0660"),
        "\ud800" + KEY,
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
    ],
)
def test_what_is_no_key_is_none(text: str) -> None:
    assert parse_key(text) is None


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    assert parse_key(text) is None


def signed(body: str) -> str:
    """The body with right check digits, calculated without the code under test."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    value, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        check = digits[digit] + check
    return f"{body}_{check}"


def test_a_secret_has_one_spelling_even_with_right_check_digits() -> None:
    body = KEY.rpartition("_")[0]

    assert signed(body) == KEY
    assert parse_key(signed("bk_" + KEY_ID.hex + "_" + "z" * 27)) is None
    assert parse_key(signed(body.replace(f"{KEY_ID.hex}_", f"{KEY_ID.hex}_0"))) is None


def test_what_is_stored_is_the_plain_hash() -> None:
    assert hash_secret(SECRET) == hashlib.sha256(SECRET).digest()


@given(secrets, secrets)
def test_only_the_same_secret_matches(one: bytes, other: bytes) -> None:
    assert matches(hash_secret(one), one)
    assert matches(hash_secret(one), other) == (one == other)


@given(st.uuids(), secrets)
def test_what_may_be_shown_says_nothing_of_the_secret(key_id: UUID, secret: bytes) -> None:
    assert prefix_of(make_key(key_id, secret)) == f"bk_{key_id.hex}"


def test_a_secret_stays_out_of_logs() -> None:
    parsed = parse_key(KEY)

    assert parsed is not None
    assert repr(SECRET) not in repr(parsed)
    assert "secret" not in repr(parsed)


@pytest.mark.parametrize("length", [0, 19, 65])
def test_a_secret_of_another_length_is_our_own_mistake(length: int) -> None:
    with pytest.raises(AssertionError):
        make_key(KEY_ID, bytes(length))
