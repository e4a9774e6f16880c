"""
XCLIENT, as Postfix invented it and Dovecot's proxies use it: who is connected to whom is connected
to us.

Only for hosts that the operator trusts; to others it is as unknown as if it were not there.  Trust is
in the connection, and stays when the client is said to be somebody else: Dovecot says what it has to
say in several commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .. import replies
from ..envelope import UNKNOWN_HOST
from ..wire.attributes import (
    decode_base64,
    parse_attributes,
    parse_fields,
    read_host,
    read_number,
    read_port,
    read_text,
    read_token,
)
from ..wire.commands import CommandError
from ..wire.lines import parse_hello
from .extensions import Extension
from .states import State

if TYPE_CHECKING:
    from .server import ServerSession

#: Fields in base64 may be longer than names.
MAX_VALUE: Final = 4096
#: Seconds; who can wait for longer has not thought about it.
MAX_SECONDS: Final = 7 * 24 * 3600

_TOLD: Final = "XCLIENT"
_PROTOCOLS: Final = {"SMTP", "ESMTP", "LMTP"}


def _protocol(value: str) -> str:
    protocol = value.upper()
    if protocol not in _PROTOCOLS:
        raise CommandError(replies.BAD_ATTRIBUTE)
    return protocol


def _name(value: str) -> str:
    """
    What a stranger has called itself to somebody else: if that is no name, there is none.
    """
    try:
        return parse_hello(value.encode("latin-1"))
    except CommandError:
        return ""


def _patience(value: str) -> int:
    seconds = read_number(value, MAX_SECONDS)
    if seconds == 0:
        raise CommandError(replies.BAD_ATTRIBUTE)
    return seconds


#: The attributes: what reads each, and the name in `lmtpsvc.envelope.Client` of what comes of it.
#: Where a connection was made to is checked, and not needed.
_ATTRIBUTES: Final[Mapping[str, tuple[Callable[[str], Any], str | None]]] = {
    "NAME": (_name, "dns_name"),
    "ADDR": (read_host, "host"),
    "PORT": (read_port, "port"),
    "PROTO": (_protocol, "protocol"),
    "HELO": (_name, "name"),
    "LOGIN": (read_text, "login"),
    "SESSION": (read_token, "session"),
    "CLIENT-TRANSPORT": (lambda value: value.upper() == "TLS", "tls"),
    "TTL": (read_number, "ttl"),
    "TIMEOUT": (_patience, "patience_seconds"),
    "DESTNAME": (_name, None),
    "DESTADDR": (read_host, None),
    "DESTPORT": (read_port, None),
    "FORWARD": (lambda value: parse_fields(decode_base64(value)), "fields"),
}


class XClient(Extension):
    """
    ``XCLIENT ADDR=192.0.2.7 LOGIN=ann``; the conversation then begins anew, with the greeting.
    """

    keyword = "XCLIENT"
    tells_by_connection = True

    def __init__(self) -> None:
        self.verbs = {b"XCLIENT": self._xclient}
        self.syntax = {b"XCLIENT": "NAME=value ..."}

    def is_available(self, session: ServerSession) -> bool:
        return session.connection.is_trusted

    def announcement(self, session: ServerSession) -> str:
        return " ".join((self.keyword, *_ATTRIBUTES))

    def _xclient(self, session: ServerSession, argument: bytes) -> None:
        if session.state not in {State.NEW, State.READY}:
            raise CommandError(replies.IN_TRANSACTION)
        said = parse_attributes(argument, _ATTRIBUTES, MAX_VALUE)
        # Those of an earlier command stay: who has much to say needs several.
        told = dict(session.notes.get(_TOLD, {}))
        for attribute, value in said.items():
            read, name = _ATTRIBUTES[attribute]
            read_value = None if value is None else read(value)
            if name is None:
                continue
            if name == "host" and read_value is None:
                # It is somebody: not the proxy, who may do more.
                told[name] = UNKNOWN_HOST
            elif read_value is None or read_value == "":
                told.pop(name, None)
            else:
                told[name] = read_value
        session.begin_anew()
        session.notes[_TOLD] = told
        # The port that we know is the proxy's.
        session.introduce({"port": None, **told} if "host" in told else told)
