"""
Conversations as values: what is said, and what is expected.  `reading` makes them of files.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen
class Send:
    """
    The client says *octets*, in one piece.
    """

    octets: bytes = field(repr=lambda octets: repr(octets[:60]))


@frozen
class Reply:
    """
    The server answers with *code* and, unless *any_status*, with exactly *status*, None for none.

    *text* is what the last line says, ``*`` for anything; *has* and *lacks* are patterns for lines.
    """

    code: int
    status: str | None = None
    any_status: bool = False
    text: str = "*"
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.any_status:
            return f"{self.code} *"
        words = [str(self.code), self.status, None if self.text == "*" else self.text]
        return " ".join(word for word in words if word is not None)


@frozen
class Silence:
    """
    The server says nothing.
    """

    def __str__(self) -> str:
        return "(nothing)"


@frozen
class Closed:
    """
    The server has closed the connection.
    """

    def __str__(self) -> str:
        return "(closed)"


@frozen
class Wait:
    """
    So many seconds go by.
    """

    seconds: float


@frozen
class Handshake:
    """
    Client and server turn to TLS.
    """


Said = Send | Wait | Handshake
Expected = Reply | Silence | Closed
#: Where it stands in its file, and what it is.
Step = tuple[int, Said | Expected]


@frozen
class Stored:
    """
    One message that is delivered: to whom, and the text without the headers that we put on top.
    """

    mailboxes: tuple[str, ...]
    text: bytes


@frozen
class Conversation:
    """
    One conversation, and what is known about it.
    """

    group: str
    title: str
    line: int
    steps: tuple[Step, ...]
    #: Ids of requirements, ``2033.helo``.
    shows: tuple[str, ...] = ()
    #: Options of the service, by their names in the configuration file.
    options: Mapping[str, str] = field(factory=dict)
    #: Keywords that the server must announce for this to make sense.
    needs: tuple[str, ...] = ()
    #: Rests on a choice of ours, or on what only the service in memory can do.
    ours: bool = False
    #: How the octets come is what it is about: they are not cut.
    in_one_piece: bool = False
    #: What is delivered; None if that is not said.
    stored: tuple[Stored, ...] | None = None

    @property
    def name(self) -> str:
        return f"{self.group}: {self.title}"
