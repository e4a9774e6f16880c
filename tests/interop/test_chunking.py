"""
BDAT from our own client to the real service: what is sent is what is stored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest
from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred

from lmtpsvc.backends.sql.reading import Store as SQLStore
from lmtpsvc.client import Client, HeardReply
from lmtpsvc.session.terms import Body

from ..running import accepts, twistd
from .lmtp import Client as PlainClient

ANN, BOB = "ann@example.test", "bob@example.test"
HEAD: Final = b"Subject: octets\r\nContent-Transfer-Encoding: binary\r\n\r\n"
#: Nothing of it may be taken for a line, a dot or an end.
HOSTILE: Final = (
    HEAD + bytes(range(256)) + b"\n.\n\r.\r\r\n.\r\nRSET\r\nQUIT\r\n.\r\n\0\r\r\n\n" * 3
)


@frozen
class Place:
    """
    A service, and what lies in its store.
    """

    socket: Path
    stored: Callable[[str], list[bytes]]


def maildir(directory: Path, address: str) -> list[bytes]:
    user, _, domain = address.partition("@")
    return [path.read_bytes() for path in (directory / "mail" / domain / user / "new").iterdir()]


def table(directory: Path, address: str) -> list[bytes]:
    texts = []
    with SQLStore.at(f"sqlite:///{directory}/mail.db") as store:
        for message in store.messages(address):
            with store.open(address, message.uid) as file:
                texts.append(file.read())
    return texts


STORES: Final = {
    "maildir": ("maildir:{top}/mail/{{domain}}/{{user}}", maildir),
    "maildir-crlf": ("maildir:{top}/mail/{{domain}}/{{user}}:newline=crlf", maildir),
    "sql": ("sql:sqlite:///{top}/mail.db:create=yes", table),
}


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, top: Path) -> Iterator[Place]:
    """
    A service with each of the stores.
    """
    words, stored = STORES[request.param]
    directory = Path(tempfile.mkdtemp(prefix="b", dir=top))
    socket = directory / "lmtp.sock"
    listening = ("--listen", f"unix:{socket}", "--users", "any")
    daemon = twistd(directory, "lmtp", *listening, "--backend", words.format(top=directory))
    daemon.start(lambda: accepts(socket))
    yield Place(socket, lambda address: stored(directory, address))
    daemon.stop()
    assert "Traceback" not in daemon.log.read_text(errors="replace")


async def send(place: Place, text: bytes, body: Body) -> tuple[list[int], str]:
    """
    Send *text* to Ann and Bob; returns the codes, and the commands that were said.
    """
    said: list[str] = []

    def overhear(command: str, _reply: HeardReply) -> None:
        said.append(command)

    client = Client(reactor, f"unix:{place.socket}", overhear=overhear)
    try:
        delivery = client.send("me@example.net", [ANN, BOB], text, body=body)
        codes = [outcome.reply.code async for _, outcome in delivery]
    finally:
        await client.close()
    return codes, "\n".join(said)


@pytest.mark.parametrize("size", [0, 3_000_000])
def test_octets(place: Place, size: int, request: pytest.FixtureRequest) -> Deferred[None]:
    """
    Binary content in one chunk or in many is stored unchanged; a Maildir with LF lines takes it
    only as 8BITMIME, and makes LF of CRLF.
    """
    kept = "maildir-crlf" in request.node.name or "sql" in request.node.name
    text = HOSTILE + Random(size).randbytes(size)

    async def test() -> None:
        codes, said = await send(place, text, "BINARYMIME" if kept else "8BITMIME")

        assert [250, 250] == codes, said
        assert "BDAT " in said
        assert "\nDATA" not in said
        expected = text if kept else text.replace(b"\r\n", b"\n")
        for user in (ANN, BOB):
            (stored,) = place.stored(user)
            assert stored.endswith(expected), "what is stored is not what was sent"

    return ensureDeferred(test())


def chunk(octets: bytes, word: bytes = b"") -> bytes:
    return b"BDAT %d%b\r\n" % (len(octets), word) + octets


def test_all_at_once(place: Place) -> None:
    """
    A whole conversation in one piece: chunks that are taken, chunks that are refused, and never one
    octet of them run.
    """
    envelope = f"MAIL FROM:<me@example.net>\r\nRCPT TO:<{ANN}>\r\nRCPT TO:<{BOB}>\r\n".encode()
    talk = [
        *(envelope, chunk(HEAD), chunk(b""), chunk(HOSTILE * 2000), chunk(b"\n", b" LAST")),
        # Without an envelope, and then with a word that there is not.
        *(chunk(HOSTILE), envelope, chunk(HOSTILE, b" FIRST"), chunk(HOSTILE)),
        *(chunk(HOSTILE, b" LAST"), b"NOOP\r\n"),
    ]
    answers = [
        *("250 2.1.0", "250 2.1.5", "250 2.1.5", "250 2.0.0", "250 2.0.0", "250 2.0.0"),
        *("250 2.0.0", "250 2.0.0", "503 5.5.1"),
        *("250 2.1.0", "250 2.1.5", "250 2.1.5", "501 5.5.4", "503 5.5.1"),
        *("501 5.5.4", "501 5.5.4", "250 2.0.0"),
    ]
    with PlainClient(place.socket) as client:
        client.say(b"".join(talk))

        assert answers == [client.reply()[:9] for _ in answers]

    text = HEAD + HOSTILE * 2000 + b"\n"
    for user in (ANN, BOB):
        (stored,) = place.stored(user)
        same = any(stored.endswith(form) for form in (b"\r\n" + text, text.replace(b"\r\n", b"\n")))
        assert same, "what is stored is not what was sent"
