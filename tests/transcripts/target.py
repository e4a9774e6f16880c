"""
Any LMTP server, over TCP or a UNIX socket.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from attrs import define, evolve, frozen

from .holding import BadReply, Difference, Heard, Verdict, first_reply, hold
from .notation import Conversation, Expected, Reply, Said, Send, Wait

#: How long a reply may take, and how long silence must last to be believed, in seconds.
PATIENCE: Final = 5.0
BRIEFLY: Final = 0.1
#: How many conversations are held at the same time.
AT_ONCE: Final = 8

_our_domain = re.compile(rb"@(example)\.org", re.IGNORECASE).sub
_target = re.compile(r"tcp:(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]+)|unix:(.+)").fullmatch


@frozen
class Target:
    """
    Where the server is, and what is different there.

    *domain* stands in for example.org in addresses.
    """

    address: tuple[str, int] | str
    domain: str = "example.org"

    @classmethod
    def parse(cls, text: str, domain: str = "example.org") -> Target:
        """
        Read ``tcp:127.0.0.1:24``, ``tcp:[::1]:24`` or ``unix:/run/lmtp``.

        Raises:
            ValueError: It is none of them.
        """
        match = _target(text)
        if match is None:
            raise ValueError(f"{text!r} is not tcp:HOST:PORT or unix:PATH")
        if match[4]:
            return cls(match[4], domain)
        return cls((match[1] or match[2], int(match[3])), domain)


class SocketClient:
    """
    A connection to a target; see `holding.Client`.
    """

    def __init__(self, target: Target) -> None:
        if isinstance(target.address, str):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(PATIENCE)
            self._socket.connect(target.address)
        else:
            self._socket = socket.create_connection(target.address, PATIENCE)
        self._unheard = b""
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, said: bytes) -> None:
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.sendall(said)
        except TimeoutError:
            # It does not read: what it says is heard all the same.
            return
        except OSError:
            self._closed = True

    def hear(self, *, brief: bool = False) -> Heard | None:
        self._socket.settimeout(BRIEFLY if brief else PATIENCE)
        while True:
            heard, self._unheard = first_reply(self._unheard)
            if heard is not None or self._closed:
                return heard
            try:
                octets = self._socket.recv(65536)
            except TimeoutError:
                return None
            except OSError:
                octets = b""
            self._closed = not octets
            self._unheard += octets

    @property
    def closed(self) -> bool:
        return self._closed and not self._unheard

    def wait(self, seconds: float) -> None:
        raise ValueError("nobody else's clock can be advanced")

    def handshake(self) -> None:
        context = ssl.create_default_context()
        # It is about the conversation: who the server is, others look at.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._socket.settimeout(PATIENCE)
        try:
            self._socket = context.wrap_socket(self._socket)
        except OSError:
            self._closed = True


@define
class Outcome:
    """
    How one conversation went: *verdict* is None where the server does not announce what it needs.
    """

    conversation: Conversation
    verdict: Verdict | None
    differences: list[Difference]


def announced(target: Target) -> frozenset[str]:
    """
    The keywords that the server announces.

    Raises:
        OSError: Nobody is there.
        BadReply: It does not answer LHLO.
    """
    with SocketClient(target) as client:
        greeting = client.hear()
        client.send(b"LHLO client.example.net\r\n")
        answer = client.hear()
    if greeting is None or answer is None or answer.code != 250:
        raise BadReply(f"no answer to LHLO, but {answer}")
    return frozenset(line.split()[0].upper() for line in answer.texts()[1:] if line)


def ask(
    target: Target, conversations: Iterable[Conversation], *, enhanced: bool = False
) -> Iterator[Outcome]:
    """
    Hold with the server all conversations that do not rest on choices of ours.  *enhanced* codes
    are compared only if that is asked for.
    """
    keywords = announced(target)
    asked = [
        each
        for each in conversations
        if not (each.ours or any(isinstance(step, Wait) for _, step in each.steps))
    ]

    def outcome(conversation: Conversation) -> Outcome:
        if not set(conversation.needs) <= keywords:
            return Outcome(conversation, None, [])
        with SocketClient(target) as client:
            differences = hold(_for(conversation, target, enhanced), client)
        verdicts = [each.verdict for each in differences]
        worst = max(verdicts, key=list(Verdict).index, default=Verdict.SAME)
        return Outcome(conversation, worst, differences)

    # Most of the time is spent on listening to silence.
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield from threads.map(outcome, asked)


def _for(conversation: Conversation, target: Target, enhanced: bool) -> Conversation:
    """
    *conversation* as it is to be held with somebody else: codes count, and no words.
    """
    domain = target.domain

    def moved(match: re.Match[bytes]) -> bytes:
        name = domain.upper() if match[1].isupper() else domain
        return b"@" + name.encode()

    def adapted(step: Said | Expected) -> Said | Expected:
        match step:
            case Send(octets):
                return Send(_our_domain(moved, octets))
            case Reply():
                # What another server calls itself, and its limits, are its own.
                has = tuple(each for each in step.has if "*" not in each)
                any_status = step.any_status or not enhanced
                return evolve(step, text="*", has=has, any_status=any_status)
        return step

    steps = tuple((number, adapted(step)) for number, step in conversation.steps)
    return evolve(conversation, steps=steps)
