"""
VRFY and EXPN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.python.failure import Failure

from lmtpsvc import replies
from lmtpsvc.delivery.routing import AddressRules
from lmtpsvc.envelope import Address, Mailbox
from lmtpsvc.errors import refusal
from lmtpsvc.limits import Limits
from lmtpsvc.session.connection import Connection
from lmtpsvc.session.events import Asked
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions
from lmtpsvc.session.verification import Verification

from ..rows import each_row

TRUSTED = Connection("192.0.2.1", is_trusted=True)
STRANGER = Connection("192.0.2.2")

ALIASES = {
    "staff": ["ann", "bob"],
    "boss": ["ann"],
    "liste": ["ann", "jörg"],
    "jörg": ["jörg"],
    "a b": ["a b"],
}


class _Now:
    """
    What fires at once, as far as the extension looks.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def addCallback(self, call: Any) -> _Now:
        return self if isinstance(self.value, Failure) else _Now(call(self.value))

    def addErrback(self, call: Any, *words: Any) -> _Now:
        return _Now(call(self.value, *words)) if isinstance(self.value, Failure) else self


class Agent:
    """
    Knows the aliases, and everybody else but ``no...``.
    """

    def __init__(self) -> None:
        self.routing = self
        self.rules = AddressRules("example.org")

    def resolve(self, address: Address) -> Any:
        asked = self.rules.mailbox(address)
        if asked.user.startswith("no"):
            return _Now(Failure(refusal(replies.NO_SUCH_USER)))
        users = ALIASES.get(asked.user, [asked.user])
        return _Now(tuple(Mailbox(user, asked.domain) for user in users))


def talk(
    packets: Iterator[bytes] | list[bytes], connection: Connection, *, for_all: bool = False
) -> list[bytes]:
    """
    What is answered.
    """
    extensions = standard_extensions(Limits(), [Verification(for_all=for_all)])
    session = ServerSession("mx", Limits(), extensions, connection)
    session.data_to_send()
    for packet in packets:
        session.receive(packet)
        while (event := session.next_event()) is not None:
            assert isinstance(event, Asked)
            found = event.find(Agent()).value
            if isinstance(found, Failure):
                session.refuse_asked(event, replies.NO_SUCH_USER)
            else:
                session.answer_asked(event, found)
    return session.data_to_send().splitlines()


#: What is asked, and what a trusted host hears.
ASKED = {
    "VRFY ann": "250 2.1.5 <ann@example.org>",
    "vrfy <Ann@Example.NET>": "250 2.1.5 <ann@example.net>",
    "VRFY ann+lists@example.org": "250 2.1.5 <ann@example.org>",
    "VRFY staff": "250 2.1.5 <staff@example.org>",
    "VRFY boss": "250 2.1.5 <ann@example.org>",
    'VRFY "a b"@example.org': '250 2.1.5 <"a b"@example.org>',
    "VRFY nobody@example.org": "550 5.1.1 No such user",
    "VRFY nobody": "553 5.1.4 Nobody of that name in this domain; say which you mean",
    "VRFY jörg": "252 2.6.8 The answer needs the SMTPUTF8 parameter",
    "VRFY jörg SMTPUTF8": "250 2.1.5 <jörg@example.org>",
    "VRFY ann smtputf8": "250 2.1.5 <ann@example.org>",
    "VRFY": "501 5.5.4 Syntax: VRFY address [SMTPUTF8]",
    "VRFY Ann Example <ann@example.org>": "501 5.5.4 Syntax: VRFY address [SMTPUTF8]",
    "VRFY ann@": "501 5.5.4 Syntax: VRFY address [SMTPUTF8]",
    "EXPN staff": "250-2.1.5 <ann@example.org>|250 2.1.5 <bob@example.org>",
    "EXPN boss": "250 2.1.5 <ann@example.org>",
    "EXPN ann": "550 5.1.0 That is a user, and no list",
    "EXPN Ann+x": "550 5.1.0 That is a user, and no list",
    "EXPN <nobody@example.org>": "550 5.1.1 No such user",
    "EXPN nobody": "553 5.1.4 Nobody of that name in this domain; say which you mean",
    "EXPN liste": "550 5.6.8 The list needs the SMTPUTF8 parameter",
    "EXPN liste SMTPUTF8": "250-2.1.5 <ann@example.org>|250 2.1.5 <jörg@example.org>",
    "EXPN": "501 5.5.4 Syntax: EXPN alias [SMTPUTF8]",
}


@each_row("step", [1, 1000], ids=["octets", "whole"])
@each_row(("said", "heard"), ASKED.items())
def test_asked(said: str, heard: str, step: int) -> None:
    """
    Each question has this answer, before and after LHLO.
    """
    octets = said.encode() + b"\r\n"
    packets = [octets[at : at + step] for at in range(0, len(octets), step)]

    assert heard.encode().split(b"|") == talk(packets, TRUSTED)
    assert heard.encode().split(b"|") == talk(packets, STRANGER, for_all=True)


def test_of_strangers() -> None:
    """
    Others are told nothing, and EXPN is not announced to them.
    """
    heard = talk([b"LHLO x\r\nVRFY ann\r\nVRFY\r\nEXPN staff\r\n"], STRANGER)

    assert b"250 EXPN" not in heard
    assert b"250 EXPN" in talk([b"LHLO x\r\n"], TRUSTED)
    assert [replies.CANNOT_VERIFY.wire[:-2], b"501 5.5.4 Syntax error in parameters"] == heard[
        -3:-1
    ]
    assert replies.NOT_IMPLEMENTED.wire[:-2] == heard[-1]


def test_pipelined() -> None:
    """
    Answers keep the order of the questions.
    """
    heard = talk([b"VRFY ann\r\nNOOP\r\nVRFY no@x\r\nEXPN staff\r\nNOOP\r\n"], TRUSTED)

    assert [b"250", b"250", b"550", b"250", b"250", b"250"] == [line[:3] for line in heard]
    assert b"250 2.0.0 OK" == heard[-1]
