"""
``lmtpsvc queue``: what is in a relay's queue, and what becomes of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ..backends.sql import versions
from ..backends.sql.engine import parse, writes
from ..backends.sql.failures import in_words
from ..relay import ledger, operations
from ..relay.entries import Entry, State, Waypoint
from ..relay.operations import Selection
from ..relay.queue import DEFAULT, make_tables
from ..relay.tables import QUEUE

#: What each command does, and what it says it has done.
_OPERATIONS: Final = {
    "retry": (operations.retry, "due now"),
    "hold": (operations.hold, "held"),
    "release": (operations.release, "released"),
    "delete": (operations.discard, "deleted"),
}

_OPEN: Final = frozenset({State.WAITING, State.HELD})
_HEAD: Final = (
    "ID",
    "ARRIVED",
    "SIZE",
    "SENDER",
    "RECIPIENT",
    "STATE",
    "NEXT",
    "TRIED",
    "LAST REPLY",
)


def main(words: Sequence[str]) -> int:
    """
    Do what *words* say; returns the exit status.
    """
    options = _parser().parse_args(words)
    try:
        database = parse(options.queue)
        engine = database.engine(1)
        try:
            if options.command == "create":
                try:
                    made = make_tables(database, engine)
                except OSError as error:
                    return _refused(options, f"{database}: {error.strerror}")
                sys.stdout.write(f"{database}: {'the tables are made' if made else 'ready'}\n")
                return 0
            if database.path is not None and not os.path.exists(database.path):
                # SQLite would make one, and say that it is empty.
                raise ValueError(f"{database.path}: there is no queue; --queue says where it is")
            with engine.connect() as connection:
                versions.check(connection, QUEUE)
            match options.command:
                case "list":
                    return _list(engine, options)
                case "show":
                    return _show(engine, options)
                case _:
                    return _operate(engine, options)
        finally:
            engine.dispose()
    except ValueError as error:
        return _refused(options, str(error))
    except SQLAlchemyError as error:
        return _refused(options, in_words(error))
    except BrokenPipeError:
        # Whoever read it has seen enough.
        sys.stderr.close()
        return 0


def _refused(options: argparse.Namespace, reason: str) -> int:
    sys.stderr.write(f"lmtpsvc queue {options.command}: {reason}\n")
    return 1


# ── commands ─────────────────────────────────────────────────────────────────────────────────────


def _list(engine: Engine, options: argparse.Namespace) -> int:
    selection = _selection(options)
    messages = octets = recipients = 0
    rows: list[Sequence[str]] = [_HEAD]
    now = time.time()
    with engine.connect() as connection:
        for entry in operations.find(connection, selection):
            messages += 1
            octets += entry.size
            if options.json:
                sys.stdout.write(json.dumps(_as_json(entry), ensure_ascii=False) + "\n")
                continue
            for each in entry.recipients:
                if each.state in _OPEN and selection.has(each):
                    recipients += 1
                    rows.append(_row(entry, each, now))
    if options.json:
        return 0
    if not messages:
        sys.stdout.write(
            "The queue is empty.\n" if selection == Selection() else "Nothing found.\n"
        )
        return 0
    sys.stdout.writelines(f"{line}\n" for line in _aligned(rows))
    sys.stdout.write(
        f"{_counted(messages, 'message')} of {octets} octets, {_counted(recipients, 'recipient')}\n"
    )
    return 0


def _show(engine: Engine, options: argparse.Namespace) -> int:
    with engine.connect() as connection:
        found = ledger.read(connection, [options.id])
        if not found:
            return _refused(options, f"{options.id}: there is no such message")
        (entry,) = found
        if options.text:
            number = 0
            while piece := ledger.read_piece(connection, entry.id, number):
                sys.stdout.buffer.write(piece)
                number += 1
            return 0
    if options.json:
        sys.stdout.write(json.dumps(_as_json(entry), ensure_ascii=False, indent=2) + "\n")
        return 0
    now = time.time()
    about = [
        ("id:", entry.id),
        ("sender:", f"<{entry.sender}>"),
        *((f"{name}:", str(value)) for name, value in sorted(entry.sender.parameters.items())),
        ("arrived:", _time(entry.arrived)),
        ("size:", f"{entry.size} octets"),
        ("relay:", "at it" if _is_claimed(entry, now) else "none at it"),
    ]
    sys.stdout.writelines(f"{line}\n" for line in _aligned(about))
    for each in entry.recipients:
        sys.stdout.write(f"\n<{each.recipient}>\n")
        facts = [
            ("  state:", each.state.value),
            ("  attempts:", str(each.attempts)),
            ("  tried:", _time(each.tried)),
            ("  next:", _time(each.due) if each.state is State.WAITING else "-"),
            ("  by:", " ".join(filter(None, (each.destination, each.server))) or "-"),
            ("  reply:", each.reply or "-"),
        ]
        sys.stdout.writelines(f"{line}\n" for line in _aligned(facts))
    return 0


def _operate(engine: Engine, options: argparse.Namespace) -> int:
    selection = _selection(options)
    if selection == Selection() and not options.all:
        raise ValueError("name messages, or say --all, --from or --to")
    operation, done = _OPERATIONS[options.command]
    with engine.connect() as connection:
        found = list(operations.find(connection, selection))
    missing = set(selection.ids) - {entry.id for entry in found}
    count = messages = 0
    for entry in found:
        numbers = [each.number for each in entry.recipients if selection.has(each)]
        # One at a time, so that relays never wait for long.
        with writes(engine.connect()) as connection, connection.begin():
            concerned = operation(connection, entry, numbers, time.time())
        count += concerned
        messages += concerned > 0
    sys.stdout.write(f"{_counted(count, 'recipient')} of {_counted(messages, 'message')} {done}\n")
    for id in sorted(missing):
        _refused(options, f"{id}: there is no such message")
    return 1 if missing else 0


# ── how it looks ─────────────────────────────────────────────────────────────────────────────────


def _row(entry: Entry, each: Waypoint, now: float) -> Sequence[str]:
    is_active = each.state is State.WAITING and each.due <= now and _is_claimed(entry, now)
    return (
        entry.id,
        _time(entry.arrived),
        str(entry.size),
        f"<{entry.sender}>",
        f"<{each.recipient}>",
        "active" if is_active else each.state.value,
        _time(each.due) if each.state is State.WAITING and not is_active else "-",
        str(each.attempts),
        each.reply or "-",
    )


def _is_claimed(entry: Entry, now: float) -> bool:
    return entry.owner is not None and entry.due is not None and entry.due > now


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "sender": str(entry.sender),
        "arrived": entry.arrived,
        "size": entry.size,
        "active": _is_claimed(entry, time.time()),
        "recipients": [
            {
                "address": str(each.recipient),
                "state": each.state.value,
                "attempts": each.attempts,
                "next": each.due if each.state is State.WAITING else None,
                "tried": each.tried,
                "destination": each.destination,
                "server": each.server,
                "reply": each.reply,
            }
            for each in entry.recipients
        ],
    }


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """
    Each column as wide as what is in it.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(
            f"{_printable(cell):{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()


def _printable(cell: str) -> str:
    # Strangers have written it, and a terminal obeys.
    return "".join(character if character.isprintable() else "?" for character in cell)


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def _selection(options: argparse.Namespace) -> Selection:
    return Selection(tuple(dict.fromkeys(options.ids)), options.sender, options.to)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lmtpsvc queue",
        description="Shows what is in a relay's queue, and changes what becomes of it."
        "  The relay may run or not.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = _add(commands, "list", "show who waits for what, a line for each recipient")
    _add_selection(listing)
    _add_json(listing, "a line of JSON for each message instead")
    show = _add(commands, "show", "show all that is known of a message")
    show.add_argument("id", metavar="ID")
    show.add_argument("--text", action="store_true", help="the message itself instead, as it is")
    _add_json(show, "JSON instead")
    for name, text in (
        ("retry", "try those who wait at once, whenever they are due"),
        ("hold", "try no more until they are released; nobody is given up while held"),
        ("release", "try those who are held, at once"),
        ("delete", "throw away, and tell nobody"),
    ):
        command = _add(commands, name, text)
        _add_selection(command)
        command.add_argument("--all", action="store_true", help="all messages")
    _add(commands, "create", "make the tables, or bring them up to date; a starting relay does so")
    return parser


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    said = f"{text[0].upper()}{text[1:]}."
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=said)
    command.add_argument(
        "--queue",
        default=DEFAULT,
        metavar="URL",
        help="where the queue is: sqlite:////var/spool/lmtpsvc/queue.db, or"
        f" postgresql://user@host/database; default {DEFAULT}, in this directory",
    )
    return command


def _add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument("ids", metavar="ID", nargs="*", help="messages, as list shows them")
    command.add_argument(
        "--from", dest="sender", metavar="ADDRESS", help="what it has sent; '' for reports"
    )
    command.add_argument(
        "--to", metavar="ADDRESS|DOMAIN", help="these recipients only, or those of this domain"
    )


def _add_json(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--json", action="store_true", help=text)
