"""
Write docs/conformance.md anew: ``python -m tests.conformance``.
"""

from __future__ import annotations

from ..transcripts.__main__ import HERE as TRANSCRIPTS
from ..transcripts.reading import read_folder as read_transcripts
from .requirements import ROOT, page, read_folder

PAGE = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- requirements -->\n", "<!-- end of requirements -->\n"


def written(text: str) -> str:
    """
    The page *text* with its made part as it should be.
    """
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = page(read_folder(), read_transcripts(TRANSCRIPTS))
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
