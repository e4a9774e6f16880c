"""
Where delivery reports are handed in: the words of ``--dsn``.

The client is imported when there is such a server: it takes more than a megabyte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..delivery.reporting import Reporter
from ..envelope import Address, Sender
from ..in_thread import InThread
from ..replies import Reply

if TYPE_CHECKING:
    from ..client import Client, Outcome

#: Seconds for one attempt.
SECONDS: Final = 300.0

#: In place of the words: the relay in front reports.
RELAYED: Final = "relayed"


def submission_client(reactor: Any, words: str, hostname: str) -> Client:
    """
    A client of the server that *words* name, which is spoken to with SMTP, or with LMTP if they say
    ``lmtp:`` in front; encrypted, if the server can.

    Raises:
        ValueError: They name none.
    """
    from ..client import TLS, Client, Dialect  # noqa: PLC0415 - see above

    dialects = {"smtp": Dialect.SMTP, "lmtp": Dialect.LMTP}
    dialect, _, rest = words.partition(":")
    to = rest if dialect in dialects else words
    return Client(
        reactor,
        to,
        dialect=dialects.get(dialect, Dialect.SMTP),
        hostname=hostname,
        tls=TLS.MAY,
    )


class Reporters:
    """
    Makes the one who reports; as long as the words stay the same, it is the same one, so that a
    reload loses no report.
    """

    def __init__(self, reactor: Any, in_thread: InThread) -> None:
        self._reactor, self._in_thread = reactor, in_thread
        self._last: tuple[tuple[str, str], Reporter] | None = None

    def reporter(self, words: str, hostname: str) -> Reporter | None:
        """
        Who reports by way of the server that *words* name, in the name of *hostname*; None if
        nobody does, or somebody else.
        """
        if words in {"no", RELAYED}:
            return None
        if self._last is None or self._last[0] != (words, hostname):
            client = submission_client(self._reactor, words, hostname)
            made = Reporter(
                _sending(client),
                client.close,
                hostname,
                IReactorTime(self._reactor),
                self._in_thread,
            )
            self._last = (words, hostname), made
        return self._last[1]


def _sending(client: Client) -> Callable[[Address, bytes, bool], Deferred[Reply | None]]:
    def send(to: Address, report: bytes, utf8: bool) -> Deferred[Reply | None]:
        # RFC 3461 §6.1: from nobody.
        delivery = client.send(Sender(None), [to], report, smtputf8=utf8, seconds=SECONDS)
        return delivery.as_deferred().addCallback(_reply)

    return send


def _reply(outcomes: list[Outcome]) -> Reply | None:
    [outcome] = outcomes
    return None if outcome.lacking == "SMTPUTF8" else outcome.reply
