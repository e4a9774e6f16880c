"""
The headers of a message, read with what Python has for it, and safe from what a stranger wrote.
"""

from __future__ import annotations

import re
from contextlib import suppress
from email.message import EmailMessage
from email.parser import HeaderParser
from email.policy import EmailPolicy
from typing import Any, BinaryIO, Final, cast

#: Octets of a message that are looked at, at most: Postfix takes no more than 100 KiB of headers.
MOST: Final = 128 * 1024

#: Characters of one header that are taken apart.  That costs up to 20 µs each, and somebody may
#: send a hundred thousand of them on purpose.
MOST_OF_ONE: Final = 16 * 1024

_end = re.compile(rb"^\r?\n", re.MULTILINE).search


class _Tolerant(EmailPolicy):
    """
    Python's parsers fail with anything on headers that are not well-formed: ``Message-ID: <`` is an
    IndexError, and a thousand parentheses in ``To`` a RecursionError.  Here, such a header is its
    text.
    """

    def header_fetch_parse(self, name: str, value: str) -> Any:
        if len(value) <= MOST_OF_ONE:
            # Whatever goes wrong: a message that has arrived must be deliverable.
            with suppress(Exception):
                return super().header_fetch_parse(name, value)
        unfolded = value.replace("\r", "").replace("\n", "")
        # What was not UTF-8 has come as half surrogate pairs, which nobody could print or store.
        return unfolded.encode("utf-8", "replace").decode()


_parser = HeaderParser(policy=_Tolerant())


def read_headers(file: BinaryIO) -> EmailMessage:
    """
    Read the headers at the beginning of *file*, up to the empty line, or what 128 KiB have of them.

    They come as `email` has them: ``headers["Subject"]`` is decoded text, or None if there is no
    such header, and ``headers.get_all("Received")`` are all of one name.  None of that ever fails.
    """
    octets = file.read(MOST)
    end = _end(octets)
    if end is not None:
        octets = octets[: end.start()]
    elif len(octets) == MOST:
        # The last line may be cut.
        octets = octets[: octets.rfind(b"\n") + 1]
    # Decoded here, since SMTPUTF8 (RFC 6532 §3) has UTF-8 in headers, which bytes parsers hide.
    parsed = _parser.parsestr(octets.decode("utf-8", "surrogateescape"))
    return cast("EmailMessage", parsed)
