"""
docs/performance.md, with what was measured between its marks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from .growth import SERIES
from .runs import Results
from .tables import growth, overview, render_table


def put(results: Results, page: Path, pictures: Path, *, brief: bool = False) -> None:
    """
    Put what there is into *page*: the table between ``<!-- results -->`` and ``<!-- end of results
    -->``, what grows between such marks for ``growth``; the *pictures* are linked.  A *brief* table
    goes between those for ``other disk``.

    Raises:
        ValueError: The page has no such marks.
    """
    text = page.read_text(encoding="utf-8")
    where = Path(os.path.relpath(pictures, page.parent))
    drawn = {name: f"![{SERIES[name].title}]({where / name}.svg)" for name in results.growth}
    if brief:
        text = _between(text, "other disk", f"{results.machine}\n\n{overview(results)}")
    elif results.table:
        text = _between(text, "results", "\n\n".join([render_table(results), *drawn.values()]))
    else:
        parts = [results.machine]
        for name, runs in results.growth.items():
            title, *table = growth(name, runs).splitlines()
            parts += [title, drawn[name], "\n".join(table).strip()]
        text = _between(text, "growth", "\n\n".join(parts))
    page.write_text(text, encoding="utf-8")


def _between(text: str, mark: str, what: str) -> str:
    """
    The text with *what* between two marks.
    """
    marks = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    if marks.search(text) is None:
        raise ValueError(f"the page has no <!-- {mark} --> with <!-- end of {mark} --> below it")
    return marks.sub(lambda found: f"{found[1]}{what}\n{found[2]}", text)
