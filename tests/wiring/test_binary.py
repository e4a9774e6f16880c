"""
Where binary content is welcome: where every backend keeps each octet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock

from lmtpsvc import replies
from lmtpsvc.config import structure
from lmtpsvc.delivery.routing import AddressRules, Routing
from lmtpsvc.directory.anyone import Anyone
from lmtpsvc.envelope import Address
from lmtpsvc.errors import PermanentFailure
from lmtpsvc.limits import Limits
from lmtpsvc.session.events import RecipientOffered
from lmtpsvc.session.extensions import Extensions
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions
from lmtpsvc.wiring.parts import Parts, make_parts

LF, CRLF = "maildir:lf/{user}", "maildir:crlf/{user}:newline=crlf"
MBOX, SQL = "mbox:box/{user}", "sql:sqlite\\:///mail.db:create=yes"


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Parts]:
    monkeypatch.chdir(tmp_path)

    def parts(default: str, *others: str) -> Parts:
        routes = [{"to": [f"{n}.example"], "backend": each} for n, each in enumerate(others)]
        said = {"backend": default, "routes": routes, "users": "any", "hostname": "mx.example.org"}
        return make_parts(structure(said), reactor)

    return parts


@pytest.mark.parametrize(
    ("backends", "kept"),
    [
        ([LF], False),
        ([CRLF], True),
        ([MBOX], False),
        ([SQL], True),
        ([SQL, CRLF], True),
        ([SQL, LF], False),
        ([LF, SQL], False),
    ],
)
def test_announced(backends: list[str], kept: bool, parts: Callable[..., Parts]) -> None:
    """
    BINARYMIME is announced where all backends can keep it, and not where one cannot: a client that
    does not know whom a message is for would have it refused, where else it would encode it.
    """
    made = parts(*backends)
    session = ServerSession("mx", Limits(), made.extensions)
    hello = made.extensions.capabilities("mx", session).wire

    assert kept == (b"BINARYMIME\r\n" in hello)
    assert b"250-CHUNKING\r\n" in hello
    assert kept == made.backend.capabilities.binary


def test_read_again(
    parts: Callable[..., Parts], failure_of: Callable[..., Any], success_of: Callable[..., Any]
) -> None:
    """
    If the backends change between MAIL and RCPT, RCPT is refused (RFC 3463 §3.7).
    """
    made = parts(LF)
    routing = Routing(Anyone(), made.backend, AddressRules("mx.example.org"), Clock(), 60)
    ann = Address("ann", "example.org")

    assert success_of(routing.resolve(ann))
    failure = failure_of(routing.resolve(ann, binary=True), PermanentFailure)
    assert replies.BINARY_NOT_STORED == failure.value.reply


@pytest.mark.parametrize("body", ["7BIT", "8BITMIME", "BINARYMIME"])
def test_offer(body: str) -> None:
    """
    A RCPT says whether its message is binary.
    """
    extensions: Extensions = standard_extensions(Limits(), binary=True)
    session = ServerSession("mx", Limits(), extensions)
    session.receive(f"LHLO x\r\nMAIL FROM:<> BODY={body}\r\nRCPT TO:<a@b>\r\n".encode())

    offer = session.next_event()

    assert isinstance(offer, RecipientOffered)
    assert offer.is_binary == (body == "BINARYMIME")
