"""
RET, ENVID, NOTIFY and ORCPT.
"""

from __future__ import annotations

from typing import Any

import pytest

from lmtpsvc import replies
from lmtpsvc.envelope import Address, OriginalRecipient, Sender
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply
from lmtpsvc.session.dsn import DSN
from lmtpsvc.session.events import RecipientOffered, TextBegun
from lmtpsvc.session.extensions import Extensions
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions
from lmtpsvc.wire.commands import CommandError

from ..rows import each_row

ANN = Address("ann", "example.org")
MAIL, RCPT = DSN().mail_parameters, DSN().rcpt_parameters


class TestMail:
    @pytest.mark.parametrize(
        ("keyword", "value", "read"),
        [
            ("RET", "FULL", "FULL"),
            ("RET", "hdrs", "HDRS"),
            ("ENVID", "QQ314159", "QQ314159"),
            ("ENVID", "a+2Bb+3Dc+20d", "a+b=c d"),
            ("ENVID", "x" * 100, "x" * 100),
        ],
    )
    def test_read(self, keyword: str, value: str, read: str) -> None:
        """
        Keywords in any case; an envelope id is what its xtext means.
        """
        assert read == MAIL[keyword](value)

    @each_row(
        ("keyword", "value"),
        [
            *[("RET", value) for value in (None, "BODY", "FULL,HDRS", "FULL;")],
            *[
                ("ENVID", value)
                for value in (None, "x" * 101, "a+2b", "a+", "a+0D+0A", "a+00", "a+7F", "ü", "a+C3")
            ],
        ],
    )
    def test_refused(self, keyword: str, value: str | None) -> None:
        """
        What is none is 501 (RFC 3461 §5.1).
        """
        with pytest.raises(CommandError) as caught:
            MAIL[keyword](value)
        assert replies.BAD_PARAMETER == caught.value.reply


class TestRcpt:
    @pytest.mark.parametrize(
        ("value", "read"),
        [
            ("NEVER", {"NEVER"}),
            ("never", {"NEVER"}),
            ("SUCCESS", {"SUCCESS"}),
            ("Success,failure,DELAY", {"SUCCESS", "FAILURE", "DELAY"}),
            ("FAILURE,FAILURE", {"FAILURE"}),
        ],
    )
    def test_notify(self, value: str, read: set[str]) -> None:
        """
        NEVER, or a list in any order and case.
        """
        assert read == RCPT["NOTIFY"](value)

    @pytest.mark.parametrize(
        "value", [None, "", "NEVER,SUCCESS", "SUCCESS,", ",SUCCESS", "ALWAYS", "SUCCESS;DELAY"]
    )
    def test_notify_refused(self, value: str | None) -> None:
        """
        NEVER stands alone, and nothing is left empty.
        """
        with pytest.raises(CommandError) as caught:
            RCPT["NOTIFY"](value)
        assert replies.BAD_PARAMETER == caught.value.reply

    @each_row(
        ("value", "read"),
        [
            ("rfc822;bob@example.org", OriginalRecipient("rfc822", "bob@example.org")),
            ("RFC822;Bob+2Bx@Example.ORG", OriginalRecipient("RFC822", "Bob+x@Example.ORG")),
            ("rfc822;not+20an+20address", OriginalRecipient("rfc822", "not an address")),
            ("rfc822;", OriginalRecipient("rfc822", "")),
            ("x400;/C+3DDE/S+3Dx", OriginalRecipient("x400", "/C=DE/S=x")),
            ("rfc822;a;b", OriginalRecipient("rfc822", "a;b")),
            (r"utf-8;j\x{F6}rg@x", OriginalRecipient("utf-8", "jörg@x")),
            ("UTF-8;jörg@x", OriginalRecipient("UTF-8", "jörg@x")),
            ("rfc822;" + "x" * 493, OriginalRecipient("rfc822", "x" * 493)),
        ],
    )
    def test_orcpt(self, value: str, read: OriginalRecipient) -> None:
        """
        A type and an address, which need not be one that we would take (RFC 3461 §4.2).
        """
        assert read == RCPT["ORCPT"](value)

    @each_row(
        "value",
        [
            None,
            "",
            "bob@example.org",
            ";bob@example.org",
            "rfc 822;bob",
            "rfc822;bob+2x",
            "rfc822;bob+0D+0AX:+20y",
            "rfc822;b\u00f6b",
            "rfc822;b+F6b",
            "rfc822;" + "x" * 494,
            "utf-8;" + "ö" * 250,
            r"utf-8;\x{D800}",
            r"utf-8;\x{A}",
            r"utf-8;\x{202E}",
            "utf-8;bob+2Bx",
            "r\u00f6c822;x",
        ],
    )
    def test_orcpt_refused(self, value: str | None) -> None:
        """
        No type, no xtext, too long, or what must not get into a header.
        """
        with pytest.raises(CommandError) as caught:
            RCPT["ORCPT"](value)
        assert replies.BAD_PARAMETER == caught.value.reply

    @pytest.mark.parametrize(
        ("value", "sender", "reply"),
        [
            ("utf-8;jörg@x", Sender(ANN), replies.NEED_UTF8),
            ("utf-8;jörg@x", Sender(ANN, {"SMTPUTF8": True}), None),
            (r"utf-8;j\x{F6}rg@x", Sender(ANN), None),
        ],
    )
    def test_utf8(self, value: str, sender: Sender, reply: Reply | None) -> None:
        r"""
        ``\x{...}`` may come from anybody, UTF-8 itself from who said SMTPUTF8 (RFC 6533 §3).
        """
        session = ServerSession("mx", Limits(), Extensions([]))
        registry = Extensions([DSN()])
        said = None
        try:
            recipient = registry.recipient(session, sender, ANN, {"ORCPT": value})
            assert OriginalRecipient("utf-8", "jörg@x") == recipient.original
        except CommandError as error:
            said = error.reply
        assert reply == said


def talk(packets: Any) -> tuple[bytes, TextBegun | None]:
    """
    What a session with DSN answers, and what it tells about the message.
    """
    session = ServerSession("mx", Limits(), standard_extensions(Limits(), [DSN()]))
    begun = None
    for packet in packets:
        session.receive(packet)
        while (event := session.next_event()) is not None:
            if isinstance(event, RecipientOffered):
                session.answer_recipient(event, replies.RECIPIENT_OK)
            elif isinstance(event, TextBegun):
                begun = event
    return session.data_to_send(), begun


TALK = (
    b"LHLO x\r\n"
    b"MAIL FROM:<me@example.org> RET=BODY\r\n"
    b"MAIL FROM:<me@example.org> RET=HDRS RET=HDRS\r\n"
    b"MAIL FROM:<me@example.org> ret=hdrs envid=QQ+2B1 MT-PRIORITY=-3 BY=+60;nt\r\n"
    b"RCPT TO:<ann@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;staff+2Bx@example.org\r\n"
    b"RCPT TO:<ann@example.org> NOTIFY=NEVER,DELAY\r\n"
    b"RCPT TO:<ann@example.org> ORCPT=rfc822\r\n"
    b"RCPT TO:<ann@example.org> RET=FULL\r\n"
    b"RCPT TO:<bob@example.org> notify=never\r\n"
    b"DATA\r\n"
)


class TestTalk:
    @pytest.mark.parametrize(
        "packets", [[TALK], [TALK[i : i + 1] for i in range(len(TALK))]], ids=["whole", "octets"]
    )
    def test_conversation(self, packets: list[bytes]) -> None:
        """
        What is wrong is refused, and what is right arrives with sender and recipients.
        """
        said, begun = talk(packets)

        assert b"250 DSN\r\n" in said
        codes = [line[:9] for line in said.splitlines() if line[3:4] == b" "]
        assert [b"501 5.5.4"] * 2 + [b"250 2.1.0", b"250 2.1.5"] == codes[2:6]
        assert [b"501 5.5.4", b"501 5.5.4", b"555 5.5.4", b"250 2.1.5"] == codes[6:10]
        assert begun is not None
        sender = begun.sender
        assert ("HDRS", "QQ+1", -3) == (sender.returned, sender.envelope_id, sender.priority)
        ann, bob = (offer.recipient for offer in begun.accepted)
        assert frozenset({"SUCCESS", "DELAY"}) == ann.notify
        assert "rfc822;staff+x@example.org" == str(ann.original)
        assert (frozenset({"NEVER"}), None) == (bob.notify, bob.original)

    def test_without(self) -> None:
        """
        A service that has not announced DSN knows none of it.
        """
        registry = standard_extensions(Limits())
        session = ServerSession("mx", Limits(), registry)
        sender = Sender(ANN)
        for keyword in ("RET", "ENVID"):
            with pytest.raises(CommandError) as caught:
                registry.sender(session, ANN, {keyword: "FULL"})
            assert replies.UNKNOWN_PARAMETER == caught.value.reply
        for keyword in ("NOTIFY", "ORCPT"):
            with pytest.raises(CommandError) as caught:
                registry.recipient(session, sender, ANN, {keyword: "NEVER"})
            assert replies.UNKNOWN_PARAMETER == caught.value.reply
