"""
The standard streams of a command: those that are closed, and output that cannot leave.
"""

from __future__ import annotations

import os
import sys


def have_streams() -> None:
    """
    A stream that is closed is as good as /dev/null, and no file of ours gets its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the end


def show(text: str) -> OSError | None:
    """
    Have all output leave, *text* behind it.  Returns what keeps it from that, if anything does: there is
    no output any more then, and ``sys.stdout`` is None, as Python has it where there is none.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()
    except OSError as error:
        sys.stdout = None
        return error
    return None


def end_output(status: int) -> int:
    """
    Have all output leave while somebody can still be told if it cannot: Python would only tell of it at
    its very end.  Returns the exit *status*, which is no success then, unless nobody reads any more.
    """
    return _told(show(""), status)


def is_of_output(error: OSError) -> bool:
    """
    Whether a command has ended with *error* because its output cannot leave, which is more than fits into a
    buffer; it has been told then.
    """
    if isinstance(error, BrokenPipeError):
        sys.stdout = None
        return True
    if sys.stdout is None or error.filename is not None:
        return False
    # If it was the output, no further line can leave.
    _told(show("\n"), 1)
    return sys.stdout is None


def _told(error: OSError | None, status: int) -> int:
    if error is None or isinstance(error, BrokenPipeError):
        # Who has seen enough may go.
        return status
    sys.stderr.write(f"lmtpsvc: standard output: {error.strerror}\n")
    return status or 1
