"""
``lmtpsvc passwd``: logins in a file, for ``--auth scram:FILE``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from getpass import getpass

from ..auth.stored_keys import (
    ITERATIONS,
    MAX_ITERATIONS,
    MIN_ITERATIONS,
    format_line,
    make_keys,
    parse,
)


def main(words: Sequence[str]) -> int:
    """
    Do what *words* say; returns the exit status.
    """
    parser = argparse.ArgumentParser(
        "lmtpsvc passwd",
        description="Sets the password of USER in FILE, which --auth scram:FILE reads; FILE is made"
        " if it is not there.  The password is asked for, or is the first line of standard input."
        "  What is kept of it is enough to check it, not to log in with.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("user", metavar="USER")
    parser.add_argument("--delete", action="store_true", help="take USER out of FILE")
    parser.add_argument(
        "--iterations",
        type=int,
        default=ITERATIONS,
        help=f"more make guessing slower, and logging in too; default {ITERATIONS}",
    )
    options = parser.parse_args(words)
    try:
        _change(options)
    except (ValueError, OSError) as error:
        said = getattr(error, "strerror", None) or str(error)
        sys.stderr.write(f"lmtpsvc passwd: {options.file}: {said}\n")
        return 1
    return 0


def _change(options: argparse.Namespace) -> None:
    user: str = options.user
    if not user or ":" in user or not user.isprintable() or user.startswith("#") or " " in user:
        raise ValueError(f"{user!r} cannot be a user")
    lines = _lines(options.file)
    rest = [line for line in lines if line.partition(":")[0] != user]
    if options.delete:
        if len(rest) == len(lines):
            raise ValueError(f"there is no {user}")
    else:
        if not MIN_ITERATIONS <= options.iterations <= MAX_ITERATIONS:
            raise ValueError(f"iterations are {MIN_ITERATIONS} to {MAX_ITERATIONS}")
        line = format_line(user, make_keys(_password(user), options.iterations))
        position = next((at for at, each in enumerate(lines) if each not in rest), len(rest))
        rest.insert(position, line)
    _replace(options.file, "".join(f"{line}\n" for line in rest))


def _lines(path: str) -> list[str]:
    """
    What is in the file; nothing if there is none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    # A broken file is not made worse.
    list(parse(text))
    return text.splitlines()


def _password(user: str) -> str:
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = getpass(f"Password of {user}: ")
        if getpass("Again: ") != password:
            raise ValueError("that was not the same password")
    if not password:
        raise ValueError("a password has at least one character")
    return password


def _replace(path: str, text: str) -> None:
    """
    Write the file anew, so that whoever reads it sees the old or the new one; for its owner alone,
    unless its mode says something else.
    """
    directory = os.path.dirname(path) or "."
    descriptor, new = tempfile.mkstemp(prefix=".", dir=directory)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            if os.path.exists(path):
                before = os.stat(path)
                os.fchmod(file.fileno(), before.st_mode & 0o777)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
