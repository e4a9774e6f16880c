"""
Messages of any size, which say in their Message-ID who they are and how long.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import cycle, islice

_HEADER = (
    b"Received: from relay.bench.example (relay.bench.example [192.0.2.1])\r\n"
    b"\tby mx.bench.example (Postfix) with ESMTPS id 4XyZ1234;\r\n"
    b"\tMon, 02 Nov 2026 10:00:00 +0000 (UTC)\r\n"
    b"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\n"
    b'From: "A Sender" <sender@bench.example>\r\n'
    b"To: undisclosed-recipients:;\r\n"
    b"Subject: One of many\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n"
    b"Message-ID: <%012d.%012d@bench.example>\r\n"
    b"\r\n"
)
_identity = re.compile(rb"^Message-ID: <(\d{12})\.(\d{12})@bench\.example>\r?\n", re.MULTILINE)

_FIRST = b".A line that begins with a dot, which has two of them on its way\r\n"
# Lines that differ, so that nobody's compression has an easy day.
_LINES = [
    b" ".join(b"%07x" % (number * 2654435761 * (word + 3) & 0xFFFFFFF) for word in range(9))
    + b"\r\n"
    for number in range(97)
]
_LAST = b"This is the end\r\n"


class Text:
    """
    A message of so many octets, as it is sent and as it is stored.

    *body* is what goes over the wire behind the header, with the final dot; all who send messages of
    this size share it.
    """

    def __init__(self, octets: int) -> None:
        self.octets = octets
        room = octets - len(_HEADER % (0, 0)) - len(_FIRST) - len(_LAST)
        if room < 2:
            raise ValueError(f"a message needs {octets - room + 2} octets, not {octets}")
        whole, rest = divmod(room, len(_LINES[0]))
        if rest < 2:
            # A line needs two octets for its end.
            whole, rest = whole - 1, rest + len(_LINES[0])
        middle = b"".join(islice(cycle(_LINES), whole)) + b"x" * (rest - 2) + b"\r\n"
        body = _FIRST + middle + _LAST
        self.body = memoryview(b"." + body + b".\r\n")
        self._stored = body.replace(b"\r\n", b"\n")

    def header(self, number: int) -> bytes:
        """
        The header of message *number*, with the empty line.
        """
        return _HEADER % (number, self.octets)

    def is_end_of(self, stored: bytes) -> bool:
        """
        Whether a file, with line ends of either kind, has the whole of the body at its end.
        """
        if stored.endswith(b"\r\n"):
            stored = stored.replace(b"\r\n", b"\n")
        return stored.endswith(b">\n\n" + self._stored)


@cache
def text_of(octets: int) -> Text:
    """
    The text of that size; it is made once.
    """
    return Text(octets)


def identity(stored: bytes) -> tuple[int, int] | None:
    """
    The number and the octets of a message that was stored, or None if it is none of ours.
    """
    found = _identity.search(stored)
    return None if found is None else (int(found[1]), int(found[2]))
