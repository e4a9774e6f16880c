"""
The command ``lmtpsvc``, or ``python -m lmtpsvc``: what an operator does beside serving.

Each sub-command is a module of its own, imported only when it is asked for.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Final

from .commands.streams import end_output, have_streams, is_of_output

#: The module of each sub-command, whose ``main`` takes the words behind it and returns the exit
#: status, and what it does.
COMMANDS: Final = {
    "check": (
        ".commands.check",
        "Tell what is wrong with a configuration, and where mail would go",
    ),
    "check-relay": (
        ".commands.check_relay",
        "Tell what is wrong with a configuration of a relay, and where mail would go",
    ),
    "export": (
        ".commands.exporting",
        "Write mailboxes of an SQL store as Maildirs or mbox files, or into another store",
    ),
    "import": (".commands.importing", "Put a Maildir or an mbox file into an SQL store"),
    "passwd": (".commands.passwd", "Set a password in a file for --auth scram:FILE"),
    "queue": (".commands.queue", "Show what a relay's queue has, and change what becomes of it"),
    "sql": (".commands.sql", "Look after an SQL store: check, upgrade, clean"),
    "send": (".commands.sending", "Send a message over LMTP or SMTP, and show every reply"),
}

#: What some of them import and not everybody has installed.
OF_SQL: Final = frozenset({"alembic", "sqlalchemy"})


def main(words: Sequence[str] | None = None) -> int:
    """
    Run the sub-command that *words* name; returns the exit status.
    """
    have_streams()
    name, *rest = (sys.argv[1:] if words is None else words) or [""]
    try:
        status = _run(name, rest)
    except KeyboardInterrupt:
        # As shells have it for a command that was interrupted.
        status = 130
    except SystemExit as ended:
        # Of --help, and of words that are wrong.
        if not ended.code and end_output(0):
            return 1
        raise
    except FileNotFoundError as error:
        if error.filename is not None:
            raise
        # The only file that has no name is the directory that paths count from.
        sys.stderr.write(f"lmtpsvc {name}: the directory in which it was started is gone\n")
        return 1
    except OSError as error:
        # Output that is more than fits into a buffer leaves before the end.
        if not is_of_output(error):
            raise
        return 1
    return end_output(status)


def _run(name: str, rest: Sequence[str]) -> int:
    if name in {"--help", "-h", "help"}:
        sys.stdout.write(usage())
        return 0
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(COMMANDS)}"
        said = f"{name!r} is no command" if name else "which command?"
        sys.stderr.write(f"lmtpsvc: {said}; {hint}; see lmtpsvc --help\n")
        return 1
    module, _ = COMMANDS[name]
    try:
        command = import_module(module, __package__)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in OF_SQL:
            raise
        sys.stderr.write(f"lmtpsvc {name}: {package} is missing: pip install 'lmtpsvc[sql]'\n")
        return 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What strangers have written is shown with the letters that there are.
            stream.reconfigure(errors="backslashreplace")
    status: int = command.main(rest)
    return status


def usage() -> str:
    """
    What ``lmtpsvc --help`` says.
    """
    width = max(map(len, COMMANDS))
    commands = "".join(f"  {name:{width}}  {text}\n" for name, (_, text) in COMMANDS.items())
    return (
        f"Usage: lmtpsvc COMMAND ...\n\n{commands}\nlmtpsvc COMMAND --help tells more."
        "  The service itself is twistd lmtp.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
