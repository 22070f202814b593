"""How many workers `barnabas up` is asked for."""

import pytest
import typer

from barnabas.cli.stack import _range_of


@pytest.mark.parametrize(
    ("given", "expected"),
    [("1", (1, None)), ("24", (24, None)), ("1..8", (1, 8)), (" 2..2 ", (2, 2)), ("1..64", (1, 64))],
)
def test_a_number_stays_and_a_range_scales(given: str, expected: tuple[int, int | None]) -> None:
    assert _range_of(given) == expected


@pytest.mark.parametrize("given", ["0", "65", "", "two", "8..1", "0..3", "1..65", "1...8", "1-8", "-1"])
def test_what_is_neither_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"1\.\.8"):
        _range_of(given)
