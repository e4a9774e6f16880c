"""
``lmtpsvc sql``: what an operator does to a store by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ..backends.sql import versions
from ..backends.sql.engine import parse, what_is_not_safe
from ..backends.sql.failures import in_words
from ..backends.sql.retention import remove_unreferenced

#: What one statement may take: somebody waits for it, and knows why.
_SECONDS = 3600

#: No date would be left before the year 1.
_OLDEST = timedelta(days=100 * 365)

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def main(words: Sequence[str]) -> int:
    """
    Do what *words* say; returns the exit status.
    """
    options = _parser().parse_args(words)
    try:
        database = parse(options.url)
        engine = database.engine(1, _SECONDS)
        try:
            match options.command:
                case "upgrade":
                    done = versions.upgrade(engine)
                    said = "the tables are made" if done else "nothing to do"
                case "check":
                    with engine.connect() as connection:
                        versions.check(connection)
                        unsafe = what_is_not_safe(connection)
                    if unsafe:
                        raise ValueError("; ".join(unsafe))
                    said = "ready"
                case _:
                    with engine.connect() as connection:
                        versions.check(connection)
                    removed = remove_unreferenced(engine, options.older_than)
                    said = f"removed {removed.texts} texts of {removed.octets} octets"
        finally:
            engine.dispose()
    except ValueError as error:
        return _refused(options, str(error))
    except SQLAlchemyError as error:
        return _refused(options, in_words(error))
    sys.stdout.write(f"{database}: {said}\n")
    return 0


def _refused(options: argparse.Namespace, reason: str) -> int:
    sys.stderr.write(f"lmtpsvc sql {options.command}: {reason}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lmtpsvc sql", description="Looks after a store that the backend sql writes to."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add(commands, "upgrade", "make the tables, or bring them up to date")
    _add(commands, "check", "say whether the service could use the database")
    clean = _add(commands, "clean", "delete texts that no mailbox has any more")
    clean.add_argument(
        "--older-than",
        type=_age,
        default=timedelta(days=1),
        metavar="AGE",
        help="first stored so long ago: 90m, 12h, 7d (default: 1d)",
    )
    return parser


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    said = f"{text[0].upper()}{text[1:]}."
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=said)
    command.add_argument("url", help="such as postgresql://user@host/database")
    return command


def _age(word: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", word)
    if match is None:
        raise argparse.ArgumentTypeError(f"{word!r} is not an age; write 90m, 12h or 7d")
    age = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if age > _OLDEST:
        raise argparse.ArgumentTypeError(f"{word!r} is older than anything here can be")
    return age
