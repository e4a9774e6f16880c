"""
What the RFCs ask of a server, what we do, and which tests show it.

Each ``rfcN.toml`` has the requirements of one RFC.  A requirement is called by number and id,
``2033.helo``; the conversations of tests/transcripts say which ones they show, and the files here
name further tests.  From both, `page` makes what docs/conformance.md has to say about each RFC.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from ..transcripts.notation import Conversation

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]

LEVELS: Final = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY")
#: Met; deliberately not met; nothing that this server could do or break.
KEPT: Final = ("yes", "no", "not ours")

#: So many conversations are named in a row; the others are counted.
_NAMED: Final = 3


class BrokenRequirements(Exception):
    """
    A file that cannot be read: says where, and why.
    """


@frozen
class Requirement:
    """
    One thing that an RFC asks for.
    """

    rfc: int
    id: str
    section: str
    level: str
    says: str
    ours: str
    kept: str = "yes"
    tests: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.rfc}.{self.id}"


@frozen
class Document:
    """
    The requirements of one RFC.
    """

    rfc: int
    title: str
    about: str
    requirements: tuple[Requirement, ...]


def read_folder(folder: Path = HERE) -> list[Document]:
    """
    All documents, RFC 2033 and RFC 5321 first.

    Raises:
        BrokenRequirements: Something is missing, unknown, or there twice.
    """
    numbers = [int(path.stem.removeprefix("rfc")) for path in folder.glob("rfc*.toml")]
    # LMTP itself, what it is made from, and then the extensions.
    numbers.sort(key=lambda number: (number != 2033, number != 5321, number))
    return [read(each, (folder / f"rfc{each}.toml").read_text("utf-8")) for each in numbers]


def read(rfc: int, text: str) -> Document:
    """
    One document.
    """
    content = tomllib.loads(text)
    requirements = tuple(_requirement(rfc, each) for each in content.get("requirement", ()))
    names = [each.id for each in requirements]
    twice = {name for name in names if names.count(name) > 1}
    if twice or not names:
        raise BrokenRequirements(f"RFC {rfc}: {sorted(twice) or 'nothing'} is there twice")
    return Document(rfc, content["title"], content["about"], requirements)


def _requirement(rfc: int, given: dict[str, Any]) -> Requirement:
    try:
        requirement = Requirement(rfc, **{**given, "tests": tuple(given.get("tests", ()))})
    except TypeError as error:
        raise BrokenRequirements(f"RFC {rfc}: {given.get('id')}: {error}") from None
    if requirement.level not in LEVELS or requirement.kept not in KEPT:
        raise BrokenRequirements(f"{requirement.name}: level or kept is none")
    return requirement


# ── tests ────────────────────────────────────────────────────────────────────────────────────────


def exists(test: str) -> bool:
    """
    Whether *test*, ``tests/wire/test_text.py::TestCases::test_whole``, is there; ``*`` is any test of
    the file.
    """
    path, *names = test.split("::")
    if not (ROOT / path).is_file():
        return False
    known = _tests_of(path)
    return bool(known) if names == ["*"] else "::".join(names) in known


@lru_cache
def _tests_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(_names(tree.body, ""))


def _names(body: Iterable[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) if name.startswith("test_"):
                yield f"{prefix}{name}"
            case ast.ClassDef(name=name, body=inside):
                yield from _names(inside, f"{prefix}{name}::")


# ── the page ─────────────────────────────────────────────────────────────────────────────────────


def table(document: Document, conversations: Sequence[Conversation]) -> str:
    """
    The part of the page about one RFC.
    """
    lines = [
        f"### RFC {document.rfc}: {document.title}",
        "",
        document.about,
        "",
        "| § | | requirement | lmtpsvc | shown by |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.section} | {each.level} | {_cell(each.says)} | {_cell(_ours(each))}"
        f" | {_cell(_shown(each, conversations))} |"
        for each in document.requirements
    ]
    return "\n".join([*lines, ""])


def _ours(requirement: Requirement) -> str:
    return f"**Not met.** {requirement.ours}" if requirement.kept == "no" else requirement.ours


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _shown(requirement: Requirement, conversations: Sequence[Conversation]) -> str:
    shown = [each for each in conversations if requirement.name in each.shows]
    pieces = [f"`{each.group}` “{each.title}”" for each in shown[:_NAMED]]
    if len(shown) > _NAMED:
        pieces.append(f"{len(shown) - _NAMED} more")
    pieces += [f"`{test.removeprefix('tests/').removesuffix('::*')}`" for test in requirement.tests]
    return "<br>".join(pieces)


def page(documents: Iterable[Document], conversations: Sequence[Conversation]) -> str:
    """
    The part of docs/conformance.md that is made.
    """
    documents = list(documents)
    counted = [each for document in documents for each in document.requirements]
    unmet = sum(each.kept == "no" for each in counted)
    head = (
        f"{len(counted)} requirements of {len(documents)} RFCs; {unmet} are not met, and say so and"
        f" why. {len(conversations)} conversations.\n"
    )
    return "\n".join([head, *(table(document, conversations) for document in documents)])
