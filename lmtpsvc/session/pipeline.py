"""
Pipeline: commands on their way out, and the replies that they wait for.

Replies come in the order of the commands (RFC 2920 §3.1), so a reply belongs to the command that has
waited longest.  This is the client's counterpart to `reply_queue`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..wire.heard_replies import HeardReply
from .outcomes import Stage


class Awaited(NamedTuple):
    """
    A reply that is to come, and who is to hear it.
    """

    stage: Stage
    #: What was said, to be shown to a reader.
    shown: str
    hear: Callable[[HeardReply], None]


class Pipeline:
    """
    Sends everything at once if the server can take it, else each command when the one before it has
    been answered.
    """

    __slots__ = ("_awaited", "_out", "_unsaid", "pipelining")

    def __init__(self) -> None:
        self.pipelining = False
        self._unsaid: deque[tuple[bytes, Awaited]] = deque()
        self._awaited: deque[Awaited] = deque()
        self._out: list[bytes] = []

    @property
    def awaited(self) -> Awaited | None:
        """
        What is to be heard next.
        """
        return self._awaited[0] if self._awaited else None

    @property
    def has_unsent(self) -> bool:
        """
        Something is to be written: the server cannot have answered it yet.
        """
        return bool(self._out)

    def say(
        self,
        stage: Stage,
        line: bytes,
        hear: Callable[[HeardReply], None],
        shown: str | None = None,
    ) -> None:
        """
        Send *line*, now or when its turn comes; *hear* gets its reply.
        """
        if shown is None:
            shown = line.rstrip(b"\r\n").decode()
        self._unsaid.append((line, Awaited(stage, shown, hear)))
        self._move()

    def expect(self, stage: Stage, shown: str, hear: Callable[[HeardReply], None]) -> None:
        """
        A reply is to come that no line of its own asks for.
        """
        self._awaited.append(Awaited(stage, shown, hear))

    def send(self, octets: bytes) -> None:
        """
        Send what is no command.
        """
        self._out.append(octets)

    def hear(self, reply: HeardReply) -> bool:
        """
        Give *reply* to whoever waits for it; False if nobody does.
        """
        if not self._awaited:
            return False
        # What is heard may change what is said next.
        self._awaited.popleft().hear(reply)
        self._move()
        return True

    def drop_unsaid(self) -> None:
        """
        Forget the commands that have not been sent.
        """
        self._unsaid.clear()

    def drop_all(self) -> None:
        """
        Forget everything that was to be said or heard.
        """
        self._unsaid.clear()
        self._awaited.clear()
        self._out.clear()

    def data_to_send(self) -> bytes:
        """
        Take what is to be written.
        """
        out = self._out
        if not out:
            return b""
        octets = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return octets

    def _move(self) -> None:
        while self._unsaid and (self.pipelining or not self._awaited):
            line, awaited = self._unsaid.popleft()
            self._out.append(line)
            self._awaited.append(awaited)
