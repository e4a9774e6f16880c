"""
XFORWARD, as Postfix has it: where the MTA in front of us has the message from, for logs.

Who the client is does not change by it: what was told is in `lmtpsvc.envelope.Client.origin`, for one
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from .. import replies
from ..envelope import Origin
from ..wire.attributes import harmless, parse_attributes, read_host, read_port
from ..wire.commands import CommandError
from .extensions import Extension
from .states import State

if TYPE_CHECKING:
    from .server import ServerSession


def _source(value: str) -> str:
    source = value.upper()
    if source not in {"LOCAL", "REMOTE"}:
        raise CommandError(replies.BAD_ATTRIBUTE)
    return source


#: The attributes: what reads each, and the name in `lmtpsvc.envelope.Origin`.
_ATTRIBUTES: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "NAME": (harmless, "dns_name"),
    "ADDR": (read_host, "host"),
    "PORT": (read_port, "port"),
    "PROTO": (harmless, "protocol"),
    "HELO": (harmless, "name"),
    "IDENT": (harmless, "ident"),
    "SOURCE": (_source, "source"),
}


class XForward(Extension):
    """
    ``XFORWARD ADDR=192.0.2.7 IDENT=4F1D2C3B``, before MAIL, as often as it takes.
    """

    keyword = "XFORWARD"
    tells_by_connection = True

    def __init__(self) -> None:
        self.verbs = {b"XFORWARD": self._xforward}
        self.syntax = {b"XFORWARD": "NAME=value ..."}

    def is_available(self, session: ServerSession) -> bool:
        return session.connection.is_trusted

    def announcement(self, session: ServerSession) -> str:
        return " ".join((self.keyword, *_ATTRIBUTES))

    def _xforward(self, session: ServerSession, argument: bytes) -> None:
        if session.state is State.NEW:
            raise CommandError(replies.LHLO_FIRST)
        if session.state is not State.READY:
            raise CommandError(replies.IN_TRANSACTION)
        told = {}
        for attribute, value in parse_attributes(argument, _ATTRIBUTES).items():
            read, name = _ATTRIBUTES[attribute]
            if value is not None:
                told[name] = read(value)
        client = session.client
        session.client = evolve(client, origin=evolve(client.origin or Origin(), **told))
        session.reply(replies.OK)
