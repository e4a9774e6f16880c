"""
The service without sockets: the real factory, with a directory and a backend that are told apart by
the names of the users.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from zope.interface import implementer

from lmtpsvc.config import LIMITS, Config, structure
from lmtpsvc.delivery.agent import DeliveryAgent
from lmtpsvc.delivery.routing import AddressRules, Routing
from lmtpsvc.delivery.spool import SpoolSettings
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import refusal
from lmtpsvc.interfaces import Capabilities, IBackend, IDirectory, IMessage
from lmtpsvc.networks import Networks
from lmtpsvc.replies import MAILBOX_FULL, NO_SUCH_USER
from lmtpsvc.server.factory import LMTPFactory
from lmtpsvc.server.protocol import LMTPProtocol
from lmtpsvc.session.auth import Auth
from lmtpsvc.session.connection import Terms
from lmtpsvc.session.extensions import Extensions
from lmtpsvc.wiring.parts import Parts, make_parts

from .holding import Heard, first_reply
from .notation import Conversation, Stored

HOSTNAME: Final = "mx.example.org"
_PEER: Final = IPv4Address("TCP", "192.0.2.7", 54321)

#: How a packet is cut: what the client says, in pieces.
Cut = Callable[[bytes], Iterator[bytes]]


def whole(said: bytes) -> Iterator[bytes]:
    """
    In one piece.
    """
    yield said


#: As much at either end of a packet is said octet by octet, which is all of most.
_BY_OCTET: Final = 5_000


def by_octet(said: bytes) -> Iterator[bytes]:
    """
    Octet by octet; by sevens in the middle of a packet that goes on for long with the same.
    """
    start, end = _BY_OCTET, max(_BY_OCTET, len(said) - _BY_OCTET)
    for index in range(min(start, len(said))):
        yield said[index : index + 1]
    for index in range(start, end, 7):
        yield said[index : min(index + 7, end)]
    for index in range(end, len(said)):
        yield said[index : index + 1]


def at_random(seed: str) -> Cut:
    """
    Into pieces of random lengths, most of them short.
    """
    dice = random.Random(seed)

    def cut(said: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(said):
            end = start + dice.choice((1, 2, 3, 5, 8, 40, 300, 2000))
            yield said[start:end]
            start = end

    return cut


@implementer(IDirectory, IBackend)
class World:
    """
    Who lives here, and where their mail goes.

    ``nobody...`` is unknown and ``unknowable...`` cannot be looked up; ``full...`` has no room and
    ``broken...`` a defect.  ``late...`` is looked up, and ``slow...`` delivered to, only when the
    client waits, the last one first.  ``team`` is an alias of ann and bob.
    """

    def __init__(self, *, binary: bool = False) -> None:
        self.capabilities = Capabilities(binary=binary)
        self.held: list[Deferred[Any]] = []
        self.stored: list[Stored] = []

    def resolve(self, mailbox: Mailbox) -> Any:
        if mailbox.user.startswith("nobody"):
            raise refusal(NO_SUCH_USER)
        if mailbox.user.startswith("unknowable"):
            raise OSError("the directory is gone")
        found = [mailbox]
        if mailbox.user == "team":
            found = [Mailbox(user, mailbox.domain) for user in ("ann", "bob")]
        return self._later("late", mailbox).addCallback(lambda _: found)

    def verify(self, mailbox: Mailbox) -> None: ...

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        results = [self._deliver(mailbox) for mailbox in mailboxes]
        good = [
            str(mailbox) for mailbox in mailboxes if not mailbox.user.startswith(("full", "broken"))
        ]
        self.stored.append(Stored(tuple(good), _text_of(message)))
        return results

    def _deliver(self, mailbox: Mailbox) -> Deferred[None]:
        if mailbox.user.startswith("full"):
            return fail(refusal(MAILBOX_FULL))
        if mailbox.user.startswith("broken"):
            return fail(ZeroDivisionError("secret details"))
        return self._later("slow", mailbox)

    def _later(self, patient: str, mailbox: Mailbox) -> Deferred[None]:
        if not mailbox.user.startswith(patient):
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self.held.append(waiting)
        return waiting

    def settle(self) -> None:
        """
        Answer whatever is held, also what is held because of that.
        """
        while self.held:
            self.held.pop().callback(None)


#: Up to the end of our Received, whose lines but the first begin with a tab.
_trace = re.compile(
    rb".*?^Received: [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)*", re.DOTALL | re.MULTILINE
).match


def _text_of(message: IMessage) -> bytes:
    """
    The message without the trace headers on top.
    """
    with message.open() as file:
        everything: bytes = file.read()
    trace = _trace(everything)
    assert trace is not None, "each message has them"
    return everything[trace.end() :]


class Encrypted:
    """
    What OpenSSL tells of a connection, with a client that has shown no certificate.
    """

    def get_protocol_version_name(self) -> str:
        return "TLSv1.3"

    def get_cipher_name(self) -> str:
        return "TLS_AES_256_GCM_SHA384"

    def get_context(self) -> Self:
        return self

    def get_verify_mode(self) -> int:
        return 0


class Clerk:
    """
    Who may log in: see `lmtpsvc.session.sasl.Authority`.  The checkers of twisted.cred, which the
    service asks, want files and threads.
    """

    takes_passwords, has_keys, takes_proof = True, False, False

    def __init__(self, user: str, password: str) -> None:
        self._known = (user, password)

    def check_password(self, user: str, password: str) -> str | None:
        return user if (user, password) == self._known else None

    def stored_keys(self, user: str) -> NoReturn:
        raise AssertionError("there are none")

    def check_proven(self, name: str) -> NoReturn:
        raise AssertionError("nobody has shown a certificate")

    def name_of(self, uid: int) -> NoReturn:
        raise AssertionError("this is no UNIX socket")

    def wait(self, clock: Clock, seconds: float) -> Deferred[None]:
        return deferLater(clock, seconds, lambda: None)

    def tell(self, host: str, mechanism: str, login: str | None) -> None: ...


class Wire(StringTransport):
    """
    The transport of the connection; what is written is kept until it is heard.

    With TLS, what is said is what is heard: that others cannot read along is for other tests.
    """

    def __init__(self) -> None:
        super().__init__(peerAddress=_PEER)
        self.is_encrypted = False

    def startTLS(self, _context: object) -> None:
        self.is_encrypted = True

    def getHandle(self) -> Encrypted:
        return Encrypted()

    def getPeerCertificate(self) -> None:
        return None


@implementer(IReactorFromThreads)
class Reactor(MemoryReactorClock):
    """
    What backends are made with; none of them is used.
    """

    def callFromThread(self, callable: Any, *args: object, **kwargs: object) -> None:
        raise AssertionError("nothing is stored by these backends")


class MemoryClient:
    """
    A client of a service of its own in memory, with the options of *conversation*; see
    `holding.Client`.
    """

    def __init__(self, conversation: Conversation, cut: Cut, directory: Path) -> None:
        config, terms, parts = settings(tuple(conversation.options.items()))
        self.world = World(binary=parts.backend.capabilities.binary)
        self._cut, self._clock = cut, Clock()
        limits = config.limits
        agent = DeliveryAgent(
            Routing(
                self.world, self.world, AddressRules(HOSTNAME), self._clock, limits.lookup_seconds
            ),
            self.world,
            self._clock,
            HOSTNAME,
            limits,
            SpoolSettings(limits.spool_memory, str(directory), "\n", execute),
        )
        factory = LMTPFactory(agent, parts.extensions)
        factory.tls = object() if _OFFERS_TLS in conversation.options else None
        factory.trusts = Networks(config.trusted).__contains__
        protocol = factory.on(terms).buildProtocol(_PEER)
        assert isinstance(protocol, LMTPProtocol)
        self._protocol: LMTPProtocol = protocol
        self._wire: Wire = Wire()
        self._unheard: bytes = b""
        #: All that the server has said.
        self.heard: bytes = b""
        protocol.makeConnection(self._wire)

    def send(self, said: bytes) -> None:
        for piece in self._cut(said):
            if not self.closed:
                self._protocol.dataReceived(piece)
        self.world.settle()

    def hear(self, *, brief: bool = False) -> Heard | None:
        said = self._wire.value()
        self._wire.clear()
        self.heard += said
        self._unheard += said
        heard, self._unheard = first_reply(self._unheard)
        return heard

    @property
    def closed(self) -> bool:
        return self._wire.disconnecting and not self._unheard

    def wait(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def handshake(self) -> None:
        assert self._wire.is_encrypted, "the server does not turn to TLS"
        self._protocol.handshakeCompleted()


#: Terms of the listener, and that STARTTLS is possible: options that are no keys of the file.
_TERMS: Final = {"tls-required": "tls_required", "login-required": "login_required"}
_OFFERS_TLS: Final = "starttls"


@cache
def settings(options: tuple[tuple[str, str], ...]) -> tuple[Config, Terms, Parts]:
    """
    What the *options* of a conversation ask for, as a service makes it of an operator's words.

    Raises:
        BrokenConfig: There is no such key, or it has no such value.
    """
    names = [name for name, _ in options]
    terms = Terms(**{_TERMS[name]: True for name in names if name in _TERMS})
    # A small spool, so that many conversations cross its bound.
    limits: dict[str, Any] = {"spool-memory": 200}
    said: dict[str, Any] = {"limits": limits, "hostname": HOSTNAME}
    for name, value in options:
        if name in LIMITS:
            limits[name] = value
        elif name not in _TERMS and name != _OFFERS_TLS:
            said[name] = _VALUES.get(value, value)
    config = structure(said)
    parts = make_parts(config, Reactor())
    if config.auth:
        _, user, password = config.auth[0].split(":")
        clerk = Auth(Clerk(user, password))
        known = parts.extensions._extensions
        extensions = [clerk if isinstance(each, Auth) else each for each in known]
        parts = evolve(parts, extensions=Extensions(extensions))
    return config, terms, parts


_VALUES: Final[Mapping[str, object]] = {"true": True, "false": False}
