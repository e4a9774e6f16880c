"""
One test for many rows says which of them are wrong.
"""

from __future__ import annotations

import inspect

import pytest
from twisted.internet.defer import Deferred

from .rows import each_row


def failure(*args: object) -> str:
    """
    What the test of the table below says, if it fails.
    """

    @each_row(("number", "square"), args)
    def test(number: int, square: int) -> None:
        if square < 0:
            pytest.skip("nobody knows")
        with pytest.raises(ZeroDivisionError):
            assert 1 / (number * number - square)

    with pytest.raises(pytest.fail.Exception) as caught:
        test()
    return str(caught.value)


def test_all_are_run() -> None:
    """
    Each row is one, in order; what is a fixture is no column.
    """
    seen: list[object] = []

    @each_row("one, two", [(1, "a"), (2, "b")])
    @each_row("three", [(3,), (4,)])
    def test(one: int, two: str, three: object, fixture: list[object]) -> None:
        fixture.append((one, two, three))

    assert ["fixture"] == list(inspect.signature(test).parameters)
    test(fixture=seen)
    assert [(1, "a", (3,)), (1, "a", (4,)), (2, "b", (3,)), (2, "b", (4,))] == seen


def test_wrong_rows() -> None:
    """
    All that are wrong are told, with their values and the reason, and none that is right.
    """
    said = failure((2, 4), (3, 4), (0, 0), (1, -1), ("x", 4))

    assert said.startswith("3 of 5 rows:\n\nnumber=3, square=4\n")
    assert "DID NOT RAISE ZeroDivisionError" in said
    assert "number=1, square=-1\n" in said
    assert "Skipped: nobody knows" in said
    assert "number='x', square=4\n" in said
    assert "TypeError" in said
    assert "number=2" not in said


@pytest.mark.parametrize(
    "ids", [["first", "second"], {"first": 1, "second": 2}, lambda value: f"value {value}"]
)
def test_ids(ids: object) -> None:
    """
    They may have names of their own.
    """

    @each_row("value", ["right", "wrong"], ids=ids)  # type: ignore[arg-type]
    def test(value: str) -> None:
        assert "right" == value

    with pytest.raises(pytest.fail.Exception) as caught:
        test()

    assert str(caught.value).splitlines()[2] in {"second", "value wrong"}


def test_no_rows() -> None:
    """
    A table that has become empty does not pass.
    """
    with pytest.raises(AssertionError):
        each_row("value", [])


def test_later() -> None:
    """
    What a test leaves to be waited for has shown nothing.
    """

    @each_row("value", [1, 2])
    def test(value: int) -> object:
        return Deferred()

    with pytest.raises(pytest.fail.Exception, match="2 of 2 rows"):
        test()
