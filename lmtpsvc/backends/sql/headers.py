"""
The headers worth searching for, out of the beginning of a message.

Whatever somebody writes into a header, the mail is delivered: what cannot be read is left out, and
what is too long is cut.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.utils import parsedate_to_datetime
from typing import Final

from attrs import frozen

from .schema import HEADER_LENGTH

#: Octets at the beginning of a message in which headers are looked for, and of one that are read.
SEARCHED: Final = 1 << 16
_LONGEST: Final = 4096

_end = re.compile(rb"\r?\n\r?\n").search
_field = re.compile(
    rb"^(From|Subject|Date|Message-ID)[ \t]*:((?:[^\n]|\n[ \t])*)", re.IGNORECASE | re.MULTILINE
).finditer
# C0 and C1 make a mess of every listing, PostgreSQL takes no NUL, nobody takes half a surrogate.
_unwanted = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\s]+").sub
# MariaDB's DATETIME has the narrowest range.
_EARLIEST: Final = datetime(1000, 1, 1, tzinfo=UTC)


@frozen
class Headers:
    """
    What stands in the columns; None for a header that is not there, or cannot be read.
    """

    from_: str | None = None
    subject: str | None = None
    date: datetime | None = None
    message_id: str | None = None


def headers_of(beginning: bytes) -> Headers:
    """
    Read the headers from the *beginning* of a message; of several of a name, the first counts.
    """
    end = _end(beginning, 0, SEARCHED)
    found: dict[bytes, bytes] = {}
    for match in _field(beginning, 0, SEARCHED if end is None else end.start() + 1):
        found.setdefault(match[1].lower(), match[2][:_LONGEST])
    return Headers(
        _readable(found.get(b"from")),
        _readable(found.get(b"subject")),
        _moment(found.get(b"date")),
        _plain(found.get(b"message-id")),
    )


def _plain(octets: bytes | None) -> str | None:
    """
    The text on one line, white space folded; RFC 6532 §3 has UTF-8, anything else is marked.
    """
    if octets is None:
        return None
    return _unwanted(" ", octets.decode("utf-8", "replace")).strip()[:HEADER_LENGTH]


def _readable(octets: bytes | None) -> str | None:
    """
    The same, with encoded words decoded (RFC 2047).
    """
    if octets is None or b"=?" not in octets:
        return _plain(octets)
    try:
        # An unknown charset, no base64: this raises half a dozen kinds of error.
        text = str(make_header(decode_header(octets.decode("utf-8", "replace"))))
    except Exception:
        return _plain(octets)
    return _unwanted(" ", text).strip()[:HEADER_LENGTH]


def _moment(octets: bytes | None) -> datetime | None:
    if octets is None:
        return None
    try:
        moment = parsedate_to_datetime(octets.decode("ascii").strip())
        # "-0000" says that the zone is not known (RFC 5322 §3.3); the moment is in UTC.
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except Exception:
        return None
    return moment if moment >= _EARLIEST else None
