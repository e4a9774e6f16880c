"""
The same conversation in SMTP: how it begins, and what is said behind the text.
"""

from __future__ import annotations

import pytest

from lmtpsvc import replies
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply, queued
from lmtpsvc.session.connection import Connection, Terms
from lmtpsvc.session.events import MessageReceived, RecipientOffered, TextBegun
from lmtpsvc.session.prdr import PerRecipientReplies
from lmtpsvc.session.reply_queue import Slot
from lmtpsvc.session.smtp import SMTPSession
from lmtpsvc.session.standard import standard_extensions

FULL = Reply(452, "Full", (2, 2))
NEVER = Reply(550, "Never", (7, 1))
QUEUED = queued("id")

ENVELOPE = (
    b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.org>\r\nRCPT TO:<cid@example.org>\r\n"
)
TEXT = b"Subject: x\r\n\r\nHi.\r\n.\r\n"


class Talk:
    """
    A conversation; *verdicts* are what the recipients are told behind the text, in their order, and
    given the other way round.
    """

    def __init__(
        self, *verdicts: Reply, terms: Terms | None = None, limits: Limits | None = None
    ) -> None:
        connection = Connection("192.0.2.7", terms=terms or Terms())
        limits = limits or Limits()
        extensions = standard_extensions(limits, [PerRecipientReplies()])
        self.session = SMTPSession("mx.example.org", limits, extensions, connection)
        self.verdicts = verdicts
        self.protocol = ""

    def __call__(self, octets: bytes, cut: int = 10_000) -> list[str]:
        """
        Say *octets* in pieces; returns the lines that come back.
        """
        for at in range(0, len(octets) or 1, cut):
            self.session.receive(octets[at : at + cut])
            while (event := self.session.next_event()) is not None:
                if isinstance(event, RecipientOffered):
                    self.session.answer_recipient(event, replies.RECIPIENT_OK)
                elif isinstance(event, TextBegun):
                    self.protocol = self.session.client.protocol
                elif isinstance(event, MessageReceived):
                    pairs = list(zip(event.slots, self.verdicts, strict=True))
                    for slot, verdict in reversed(pairs):
                        self.session.answer_message(slot, verdict)
        return self.session.data_to_send().decode().splitlines()


@pytest.fixture
def talk() -> Talk:
    talk = Talk(QUEUED, QUEUED)
    assert ["220 mx.example.org ESMTP lmtpsvc ready"] == talk(b"")
    return talk


class TestHello:
    def test_ehlo(self, talk: Talk) -> None:
        """
        The extensions are the same, but for those of LMTP alone.
        """
        said = talk(b"EHLO client.example.net\r\n")

        assert "250-mx.example.org" == said[0]
        assert {"250-PIPELINING", "250-8BITMIME", "250-CHUNKING"} <= set(said)
        assert "250 PRDR" == said[-1]

    def test_helo(self, talk: Talk) -> None:
        """
        Who does not know extensions hears of none.
        """
        assert ["250 mx.example.org"] == talk(b"HELO client.example.net\r\n")
        talk(ENVELOPE + b"DATA\r\n" + TEXT)
        assert "SMTP" == talk.protocol

    def test_protocol(self, talk: Talk) -> None:
        """
        What EHLO says is the name of the client, and ESMTP the protocol.
        """
        talk(b"EHLO client.example.net\r\n" + ENVELOPE + b"DATA\r\n" + TEXT)

        assert "ESMTP" == talk.protocol
        assert "client.example.net" == talk.session.client.name

    def test_lhlo(self, talk: Talk) -> None:
        """
        Who says LHLO to an SMTP server is told to say EHLO.
        """
        assert [str(replies.SAY_EHLO)] == talk(b"LHLO client.example.net\r\n")

    @pytest.mark.parametrize("said", [b"EHLO\r\n", b"HELO a b\r\n"])
    def test_bad(self, said: bytes, talk: Talk) -> None:
        """
        A greeting without a name that can be one is refused.
        """
        assert [str(replies.BAD_HELLO)] == talk(said)

    def test_first(self, talk: Talk) -> None:
        """
        MAIL before a greeting is refused.
        """
        assert [str(replies.EHLO_FIRST)] == talk(b"MAIL FROM:<>\r\n")

    def test_help(self, talk: Talk) -> None:
        """
        HELP lists the verbs of SMTP.
        """
        said = "\n".join(talk(b"HELP\r\n"))

        assert "SMTP, RFC 5321: EHLO HELO MAIL" in said
        assert "LHLO" not in said

    def test_terms(self) -> None:
        """
        What a listener asks of its clients is asked here, too.
        """
        talk = Talk(terms=Terms(login_required=True))
        said = talk(b"EHLO client.example.net\r\nMAIL FROM:<>\r\n")
        assert str(replies.LOGIN_REQUIRED) == said[-1]


@pytest.mark.parametrize("cut", [10_000, 1, 7])
class TestText:
    def deliver(self, verdicts: tuple[Reply, ...], cut: int, mail: bytes = b"") -> list[str]:
        talk = Talk(*verdicts)
        talk(b"EHLO client.example.net\r\n")
        envelope = ENVELOPE.replace(b"org>\r", b"org>" + mail + b"\r", 1)
        return talk(envelope + b"DATA\r\n" + TEXT + b"NOOP\r\n", cut)[3:]

    @pytest.mark.parametrize(
        ("verdicts", "said"),
        [
            ((QUEUED, QUEUED), QUEUED),
            ((FULL, FULL), FULL),
            ((NEVER, NEVER), NEVER),
            ((NEVER, FULL), FULL),
            ((NEVER, QUEUED), QUEUED),
        ],
    )
    def test_one_for_all(self, verdicts: tuple[Reply, ...], said: Reply, cut: int) -> None:
        """
        Behind the text there is one reply, and the next command has its own.
        """
        go_on = str(replies.START_TEXT)
        assert [go_on, str(said), str(replies.OK)] == self.deliver(verdicts, cut)

    def test_prdr(self, cut: int) -> None:
        """
        With PRDR there is one for each in their order, and one for the message.
        """
        assert [
            str(replies.START_TEXT),
            str(replies.EACH_FOLLOWS),
            str(NEVER),
            str(QUEUED),
            str(QUEUED),
            str(replies.OK),
        ] == self.deliver((NEVER, QUEUED), cut, b" PRDR")

    def test_too_large(self, cut: int) -> None:
        """
        That a message is too large is said once, for all recipients.
        """
        talk = Talk(limits=Limits(message_size=10))
        said = talk(b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n" + TEXT + b"NOOP\r\n", cut)

        assert [str(replies.TOO_LARGE), str(replies.OK)] == said[-2:]

    @pytest.mark.parametrize(
        "chunks", [b"BDAT 3 LAST\r\nHi.", b"BDAT 1\r\nHBDAT 2 LAST\r\ni.", b"BDAT 0 LAST\r\n"]
    )
    def test_chunks(self, chunks: bytes, cut: int) -> None:
        """
        Each chunk has a reply, and the last one that for the message.
        """
        talk = Talk(QUEUED, QUEUED)
        talk(b"EHLO x\r\n" + ENVELOPE)
        said = talk(chunks + b"NOOP\r\n", cut)

        assert chunks.count(b"BDAT") + 1 == len(said)
        assert [str(QUEUED), str(replies.OK)] == said[-2:]

    def test_no_recipients(self, cut: int) -> None:
        """
        The last chunk of nothing for nobody has a reply in SMTP (RFC 3030 §2).
        """
        talk = Talk()
        talk(b"EHLO x\r\nMAIL FROM:<>\r\n")
        said = talk(b"BDAT 3 LAST\r\nHi.NOOP\r\n", cut)

        assert ["503", "250"] == [line[:3] for line in said]


def test_prdr_has_no_value(talk: Talk) -> None:
    """
    PRDR takes no value.
    """
    talk(b"EHLO x\r\n")

    assert talk(b"MAIL FROM:<> PRDR=yes\r\n")[0].startswith("501 ")


def test_refusing() -> None:
    """
    A conversation that is over before it begins.
    """
    session = SMTPSession.refusing(replies.TOO_MANY_CONNECTIONS)

    assert replies.TOO_MANY_CONNECTIONS.wire == session.data_to_send()
    assert session.closed


def test_slots_are_answered_once(talk: Talk) -> None:
    """
    A relay that answers somebody twice is found out.
    """
    talk(b"EHLO x\r\n" + ENVELOPE)
    talk.session.receive(b"DATA\r\n" + TEXT)
    slots: tuple[Slot, ...] = ()
    while (event := talk.session.next_event()) is not None:
        if isinstance(event, MessageReceived):
            slots = event.slots
    talk.session.answer_message(slots[0], QUEUED)

    with pytest.raises(RuntimeError, match="answered twice"):
        talk.session.answer_message(slots[0], QUEUED)
