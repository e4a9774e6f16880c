"""
Who hears of response codes, and who may say MAILDATA.
"""

from __future__ import annotations

import pytest

from lmtpsvc import replies
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply, delivered
from lmtpsvc.response_codes import ResponseCode
from lmtpsvc.session.connection import LOCAL, Connection
from lmtpsvc.session.events import MessageReceived, RecipientOffered
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions

TRUSTED = Connection(is_trusted=True)
CODE = ResponseCode("MAILDATA", "abc")
NODE2 = ResponseCode("REFERRAL", "lmtp://node2/")
ELSEWHERE = Reply(450, "Redirected", (4, 4), (NODE2,))


def converse(connection: Connection, octets: bytes) -> tuple[list[bytes], list[RecipientOffered]]:
    """
    Deliver to all but ``else``; returns the lines behind the answer to LHLO, and who was offered.
    """
    session = ServerSession("mx", Limits(), standard_extensions(Limits()), connection)
    session.receive(b"LHLO x\r\n")
    assert session.next_event() is None
    session.data_to_send()
    offers = []
    session.receive(octets)
    while (event := session.next_event()) is not None:
        if isinstance(event, RecipientOffered):
            offers.append(event)
            elsewhere = event.recipient.address.local == "else"
            session.answer_recipient(event, ELSEWHERE if elsewhere else replies.RECIPIENT_OK)
        elif isinstance(event, MessageReceived):
            for slot in event.slots:
                session.answer_message(slot, delivered("id", "ann@b", (CODE,)))
    return session.data_to_send().splitlines(), offers


def message(mail: bytes = b"", rcpt: bytes = b"") -> bytes:
    return (
        b"MAIL FROM:<>" + mail + b"\r\nRCPT TO:<ann@b>" + rcpt + b"\r\nRCPT TO:<else@b>\r\n"
        b"DATA\r\nHi\r\n.\r\n"
    )


def test_asked() -> None:
    """
    Who is trusted and has asked hears them, behind RCPT and behind the text.
    """
    lines, _ = converse(TRUSTED, message(b" XRESPCODES"))

    assert b"450 4.4.4 [REFERRAL lmtp://node2/] Redirected" == lines[2]
    assert b"250 2.0.0 <ann@b> [MAILDATA abc] id Delivered" == lines[-1]


def test_not_asked() -> None:
    """
    Who has not asked hears what everybody hears.
    """
    lines, _ = converse(TRUSTED, message())

    assert (b"450 4.4.4 Redirected", b"250 2.0.0 <ann@b> id Delivered") == (lines[2], lines[-1])


def test_not_trusted() -> None:
    """
    To all others neither the question nor MAILDATA is known.
    """
    refused = replies.UNKNOWN_PARAMETER.wire[:-2]

    assert refused == converse(LOCAL, message(b" XRESPCODES"))[0][0]
    lines, offers = converse(LOCAL, message(b"", b" MAILDATA=abc"))
    assert refused == lines[1]
    assert ["else@b"] == [str(offer.recipient) for offer in offers]


def test_maildata() -> None:
    """
    The token reaches backends with its recipient.
    """
    _, offers = converse(TRUSTED, message(b"", b" MAILDATA=aZ09-_"))

    assert [{"MAILDATA": "aZ09-_"}, {}] == [dict(each.recipient.parameters) for each in offers]


@pytest.mark.parametrize("value", [b"", b"=", b"=a/b", b"=a+b", b"=" + b"x" * 1501])
def test_no_token(value: bytes) -> None:
    """
    What cannot be one is refused.
    """
    lines, _ = converse(TRUSTED, message(b"", b" MAILDATA" + value))

    assert lines[1].startswith(b"501 ")


@pytest.mark.parametrize("value", [b"=", b"=yes", b"=MAILDATA,X"])
def test_the_question_has_one_value(value: bytes) -> None:
    """
    XRESPCODES takes one value, or none; others are refused.
    """
    assert converse(TRUSTED, message(b" XRESPCODES" + value))[0][0].startswith(b"501 ")
