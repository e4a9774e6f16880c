"""
Tables with many rows, each of which takes next to no time: one test for all of them.

A test of its own takes pytest milliseconds, in each process that collects it; a row, microseconds.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

#: What a row may end with, but for its end; none is left out in silence.
_WRONG = (Exception, pytest.fail.Exception, pytest.skip.Exception)


def each_row(
    names: str | Sequence[str],
    rows: Iterable[Any],
    *,
    ids: Callable[[Any], object] | Iterable[str] | None = None,
) -> Callable[[Callable[..., object]], Callable[..., None]]:
    """
    As ``pytest.mark.parametrize``, but that one test goes through all the rows; it fails with those
    that are wrong, each by its id or its values, and why.

    Fixtures are the same for all rows: none may leave anything there.
    """
    columns = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    is_one_value = isinstance(names, str) and len(columns) == 1
    table: list[tuple[Any, ...]] = [(row,) if is_one_value else tuple(row) for row in rows]
    assert table, "a table without rows shows nothing"
    own = None if ids is None or callable(ids) else list(ids)

    def named(number: int) -> str:
        if callable(ids):
            return "-".join(str(ids(value)) for value in table[number])
        if own is not None:
            return own[number]
        return ", ".join(map("=".join, zip(columns, map(_short, table[number]), strict=True)))

    def decorate(test: Callable[..., object]) -> Callable[..., None]:
        @functools.wraps(test)
        def test_each_row(*args: Any, **fixtures: Any) -> None:
            wrong = []
            for number, row in enumerate(table):
                try:
                    given: object = test(*args, **fixtures, **dict(zip(columns, row, strict=True)))
                    assert given is None, f"nobody would wait for {given!r}"
                except _WRONG as error:
                    error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
                    wrong.append(f"{named(number)}\n{''.join(traceback.format_exception(error))}")
            if wrong:
                said = "\n".join(wrong)
                pytest.fail(f"{len(wrong)} of {len(table)} rows:\n\n{said}", pytrace=False)

        signature = inspect.signature(test)
        left = [each for each in signature.parameters.values() if each.name not in columns]
        test_each_row.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return test_each_row

    return decorate


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 200 else f"{said[:150]} … {said[-40:]}"
