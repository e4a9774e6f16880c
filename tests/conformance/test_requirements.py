"""
docs/conformance.md says what the tests show, and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ..rows import each_row
from ..transcripts.__main__ import HERE as TRANSCRIPTS
from ..transcripts.memory import MemoryClient, whole
from ..transcripts.reading import read as read_text
from ..transcripts.reading import read_folder as read_transcripts
from .__main__ import PAGE, written
from .requirements import BrokenRequirements, Requirement, exists, read, read_folder

DOCUMENTS = read_folder()
REQUIREMENTS = [each for document in DOCUMENTS for each in document.requirements]
CONVERSATIONS = read_transcripts(TRANSCRIPTS)
SHOWN = {name for conversation in CONVERSATIONS for name in conversation.shows}

#: https://www.iana.org/assignments/mail-parameters, as far as we announce them.
REGISTERED = {
    "PIPELINING",
    "ENHANCEDSTATUSCODES",
    "8BITMIME",
    "SIZE",
    "SMTPUTF8",
    "CHUNKING",
    "BINARYMIME",
    "DSN",
    "STARTTLS",
    "AUTH",
    "LIMITS",
    "DELIVERBY",
    "MT-PRIORITY",
    "REQUIRETLS",
    "RRVS",
    "HELP",
    "EXPN",
    "VERB",
    "ONEX",
}


def test_page() -> None:
    """
    The page is what ``python -m tests.conformance`` writes.
    """
    text = PAGE.read_text(encoding="utf-8")

    assert text == written(text), "run: python -m tests.conformance"


@each_row("requirement", REQUIREMENTS, ids=lambda each: each.name)
def test_is_shown(requirement: Requirement) -> None:
    """
    What an RFC demands, and we say that we do, is shown by a conversation or a test that exists.
    """
    missing = [test for test in requirement.tests if not exists(test)]

    assert missing == []
    if requirement.kept == "yes" and requirement.level != "MAY":
        assert requirement.name in SHOWN or requirement.tests


def test_conversations_show_what_exists() -> None:
    """
    No conversation claims to show a requirement that nobody has written down.
    """
    assert SHOWN <= {each.name for each in REQUIREMENTS}


def test_every_conversation_shows_something() -> None:
    """
    A conversation that shows nothing has forgotten to say what.
    """
    assert [each.name for each in CONVERSATIONS if not (each.shows or each.ours)] == []


def test_keywords_are_registered(tmp_path: Path) -> None:
    """
    What LHLO announces is registered, or begins with X (RFC 5321 §2.2.2).
    """
    [hello] = read_text("hello", "=== A title\nbegins: after greeting\nC: LHLO a.example\nS: 250\n")
    client = MemoryClient(hello, whole, tmp_path)
    client.hear()
    client.send(b"LHLO client.example.net\r\n")
    answer = client.hear()

    assert answer is not None
    keywords = {line.split()[0] for line in answer.texts()[1:]}
    assert {keyword for keyword in keywords if not keyword.startswith("X")} <= REGISTERED


class TestRead:
    """
    Reading a file.
    """

    good = 'title = "T"\nabout = "A"\n[[requirement]]\nid = "a"\nsection = "1"\n'
    good += 'level = "MUST"\nsays = "s"\nours = "o"\n'

    def test_valid(self) -> None:
        """
        A requirement with all that it needs.
        """
        assert (Requirement(9, "a", "1", "MUST", "s", "o"),) == read(9, self.good).requirements

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('id = "a"\n', ""),
            ('level = "MUST"', 'level = "OUGHT"'),
            ('ours = "o"', 'ours = "o"\nkept = "perhaps"'),
            ('ours = "o"', 'ours = "o"\ncolour = "red"'),
        ],
    )
    def test_invalid(self, old: str, new: str) -> None:
        """
        What is missing or unknown is a mistake.
        """
        with pytest.raises(BrokenRequirements):
            read(9, self.good.replace(old, new))

    def test_twice(self) -> None:
        """
        Two requirements of one name.
        """
        _, table, rest = self.good.partition("[[requirement]]")

        with pytest.raises(BrokenRequirements):
            read(9, f"{self.good}{table}{rest}")


@pytest.mark.parametrize(
    ("test", "is_there"),
    [
        ("tests/conformance/test_requirements.py::test_page", True),
        ("tests/conformance/test_requirements.py::TestRead::test_twice", True),
        ("tests/conformance/test_requirements.py::*", True),
        ("tests/conformance/test_requirements.py::test_twice", False),
        ("tests/conformance/test_requirements.py::TestRead", False),
        ("tests/conformance/requirements.py::*", False),
        ("tests/conformance/test_nothing.py::*", False),
    ],
)
def test_exists(test: str, is_there: bool) -> None:
    """
    A test is there under its whole name.
    """
    assert exists(test) is is_there
