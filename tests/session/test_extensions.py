"""
ESMTP extensions: ours, and a stranger's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lmtpsvc import replies
from lmtpsvc.envelope import Address, Recipient, Sender
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply
from lmtpsvc.session.connection import Connection
from lmtpsvc.session.events import RecipientOffered
from lmtpsvc.session.extensions import Extension, Extensions
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import (
    EightBitMime,
    Pipelining,
    Size,
    SmtpUtf8,
    standard_extensions,
)
from lmtpsvc.wire.commands import CommandError

from ..rows import each_row

ANN = Address("ann", "example.org")
JOERG = Address("jörg", "example.org")


def nobody() -> ServerSession:
    """
    A conversation in which nothing has been said.
    """
    return ServerSession("mx", Limits(), Extensions([]))


def flag(value: str | None) -> bool:
    if value is not None:
        raise CommandError(replies.BAD_PARAMETER)
    return True


class Priority(Extension):
    """
    What a stranger might write: a parameter on RCPT, a verb, and an opinion of its own.
    """

    keyword = "XPRIORITY"

    def __init__(self) -> None:
        self.rcpt_parameters = {"XPRIO": self.level}
        self.verbs = {b"XNOW": self.now}
        self.asked: list[bytes] = []

    def announcement(self, session: ServerSession) -> str:
        return "XPRIORITY 1 9"

    @staticmethod
    def level(value: str | None) -> int:
        if value is None or not value.isdigit():
            raise CommandError(replies.BAD_PARAMETER)
        return int(value)

    def check_recipient(self, session: ServerSession, sender: Sender, recipient: Recipient) -> None:
        if sender.address is None and recipient.parameters.get("XPRIO", 0) > 5:
            raise CommandError(Reply(555, "No haste for a bounce", (5, 4)))

    def now(self, session: ServerSession, argument: bytes) -> None:
        if argument == b"never":
            raise CommandError(replies.SYNTAX)
        self.asked.append(argument)
        session.reply(Reply(250, f"It is now in {session.state.name}", (0, 0)))


class Named(Extension):
    """
    An extension with whatever a test wants.
    """

    def __init__(self, keyword: str, **members: Any) -> None:
        self.keyword = keyword  # type: ignore[misc]  # not the same for all of this class
        vars(self).update(members)


class TestRegistry:
    """
    What is announced, and who is asked.
    """

    def test_capabilities(self) -> None:
        """
        LHLO is answered with our name and what every LMTP server should have (RFC 2033 §5).
        """
        registry = standard_extensions(Limits(message_size=1000))

        assert (
            b"250-mx.example.org\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n"
            b"250-CHUNKING\r\n250-SIZE 1000\r\n250-SMTPUTF8\r\n250-LIMITS RCPTMAX=10000\r\n"
            b"250-DELIVERBY\r\n250 MT-PRIORITY\r\n"
        ) == registry.capabilities("mx.example.org", nobody()).wire

    def test_none(self) -> None:
        """
        A server without extensions answers with one line, and knows no parameter.
        """
        registry = Extensions([])

        assert b"250 mx\r\n" == registry.capabilities("mx", nobody()).wire
        with pytest.raises(CommandError) as caught:
            registry.sender(nobody(), ANN, {"SIZE": "1"})
        assert replies.UNKNOWN_PARAMETER == caught.value.reply

    @pytest.mark.parametrize(
        "members",
        [
            {"keyword": "PIPELINING"},
            {"keyword": "X", "mail_parameters": {"BODY": flag}},
            {"keyword": "X", "rcpt_parameters": {"XPRIO": flag}},
            {"keyword": "X", "verbs": {b"XNOW": lambda _session, _argument: None}},
        ],
        ids=["keyword", "MAIL parameter", "RCPT parameter", "verb"],
    )
    def test_claimed_twice(self, members: dict[str, Any]) -> None:
        """
        Two extensions that claim the same thing are a mistake that is found at the start.
        """
        ours = [Pipelining(), EightBitMime(), Priority()]

        with pytest.raises(ValueError, match=r"twice|two extensions"):
            Extensions([*ours, Named(**members)])

    @pytest.mark.parametrize(
        ("members", "wrong"),
        [
            ({"keyword": None}, "None is no keyword"),
            ({"keyword": "xnow"}, "'xnow' is no keyword"),
            ({"keyword": "X\r\n250 Y"}, "is no keyword"),
            ({"keyword": "X", "mail_parameters": {"x": flag}}, "'x' in mail_parameters"),
            ({"keyword": "X", "rcpt_parameters": {b"X": flag}}, "b'X' in rcpt_parameters"),
            ({"keyword": "X", "verbs": {"XNOW": print}}, "'XNOW' in verbs"),
            ({"keyword": "X", "verbs": {b"xnow": print}}, "b'xnow' in verbs"),
        ],
    )
    def test_cannot_be_said(self, members: dict[str, Any], wrong: str) -> None:
        """
        What no client could ever say is a mistake that is found at the start, too.
        """
        with pytest.raises(ValueError, match=wrong) as caught:
            Extensions([Named(**members)])

        assert "test_extensions.Named: " in str(caught.value)

    def test_same_parameter_on_mail_and_rcpt(self) -> None:
        """
        A parameter of MAIL is not one of RCPT: both may have the same keyword.
        """
        registry = Extensions(
            [Named("A", mail_parameters={"P": flag}), Named("B", rcpt_parameters={"P": flag})]
        )
        sender = registry.sender(nobody(), ANN, {"P": None})

        assert {"P": True} == sender.parameters
        assert {"P": True} == registry.recipient(nobody(), sender, ANN, {"P": None}).parameters

    def test_checks_come_after_parameters(self) -> None:
        """
        An extension that looks at a MAIL as a whole sees what the others made of it.
        """
        seen = []

        class Watcher(Extension):
            keyword = "XWATCH"

            def check_sender(self, session: ServerSession, sender: Sender) -> None:
                seen.append(sender.size)

        Extensions([Watcher(), Size(100)]).sender(nobody(), ANN, {"SIZE": "7"})

        assert [7] == seen


class TestStandard:
    """
    SIZE, 8BITMIME and SMTPUTF8.
    """

    @pytest.mark.parametrize(
        ("parameters", "read"),
        [
            ({"SIZE": "0"}, {"SIZE": 0}),
            ({"SIZE": "1000"}, {"SIZE": 1000}),
            ({"SIZE": "00000000000000000999"}, {"SIZE": 999}),
            ({"BODY": "8bitMIME"}, {"BODY": "8BITMIME"}),
            ({"BODY": "7BIT"}, {"BODY": "7BIT"}),
            ({"SMTPUTF8": None}, {"SMTPUTF8": True}),
            ({}, {}),
        ],
    )
    def test_read(self, parameters: dict[str, str | None], read: dict[str, Any]) -> None:
        """
        Each parameter becomes a value.
        """
        registry = standard_extensions(Limits(message_size=1000))

        assert read == registry.sender(nobody(), None, parameters).parameters

    @each_row(
        ("parameters", "reply"),
        [
            ({"SIZE": "1001"}, replies.TOO_LARGE),
            ({"SIZE": "9" * 20}, replies.TOO_LARGE),
            ({"SIZE": "9" * 21}, replies.BAD_PARAMETER),
            ({"SIZE": "-1"}, replies.BAD_PARAMETER),
            ({"SIZE": "1k"}, replies.BAD_PARAMETER),
            ({"SIZE": ""}, replies.BAD_PARAMETER),
            ({"SIZE": "²"}, replies.BAD_PARAMETER),
            ({"SIZE": "١"}, replies.BAD_PARAMETER),
            ({"SIZE": None}, replies.BAD_PARAMETER),
            ({"BODY": None}, replies.BAD_PARAMETER),
            ({"BODY": "BINARYMIME"}, replies.BINARY_NOT_STORED),
            ({"SMTPUTF8": "yes"}, replies.BAD_PARAMETER),
            ({"RET": "FULL"}, replies.UNKNOWN_PARAMETER),
        ],
    )
    def test_refused(self, parameters: dict[str, str | None], reply: Reply) -> None:
        """
        A value that nobody can read is 501, a size beyond the limit 552, and the unknown 555.
        """
        with pytest.raises(CommandError) as caught:
            standard_extensions(Limits(message_size=1000)).sender(nobody(), None, parameters)

        assert reply == caught.value.reply

    @pytest.mark.parametrize("address", [JOERG, Address("ann", "bücher.example")])
    def test_utf8_must_be_asked_for(self, address: Address) -> None:
        """
        An address in UTF-8 is refused, sender or recipient, unless MAIL said SMTPUTF8.
        """
        registry = Extensions([SmtpUtf8()])
        plain = registry.sender(nobody(), ANN, {})
        asked = registry.sender(nobody(), address, {"SMTPUTF8": None})

        for refused, reply in (
            (lambda: registry.sender(nobody(), address, {}), replies.SENDER_NEEDS_UTF8),
            (lambda: registry.recipient(nobody(), plain, address, {}), replies.NEED_UTF8),
        ):
            with pytest.raises(CommandError) as caught:
                refused()
            assert reply == caught.value.reply
        assert address == registry.recipient(nobody(), asked, address, {}).address


class TestStrangers:
    """
    An extension that we know nothing of, in a conversation.
    """

    @pytest.fixture
    def talk(self) -> Callable[[bytes], tuple[bytes, list[Recipient]]]:
        session = ServerSession("mx", Limits(), Extensions([Priority()]))

        def talk(octets: bytes) -> tuple[bytes, list[Recipient]]:
            offered = []
            session.receive(octets)
            while (event := session.next_event()) is not None:
                assert isinstance(event, RecipientOffered)
                offered.append(event.recipient)
                session.answer_recipient(event, replies.RECIPIENT_OK)
            return session.data_to_send(), offered

        assert (
            b"220 mx LMTP lmtpsvc ready\r\n250-mx\r\n250 XPRIORITY 1 9\r\n",
            [],
        ) == talk(b"LHLO x\r\n")
        return talk

    def test_parameter(self, talk: Callable[[bytes], tuple[bytes, list[Recipient]]]) -> None:
        """
        Its parameter arrives with the recipient, read by it.
        """
        talk(b"MAIL FROM:<ann@example.org>\r\n")

        replied, offered = talk(b"RCPT TO:<bob@example.org> xprio=7\r\n")

        assert replies.RECIPIENT_OK.wire == replied
        assert [{"XPRIO": 7}] == [dict(recipient.parameters) for recipient in offered]

    @pytest.mark.parametrize(
        ("parameter", "reply"),
        [
            (b"XPRIO=high", replies.BAD_PARAMETER),
            (b"XPRIO", replies.BAD_PARAMETER),
            (b"XPRIO=9", Reply(555, "No haste for a bounce", (5, 4))),
            (b"NOTIFY=NEVER", replies.UNKNOWN_PARAMETER),
        ],
    )
    def test_refused(
        self,
        talk: Callable[[bytes], tuple[bytes, list[Recipient]]],
        parameter: bytes,
        reply: Reply,
    ) -> None:
        """
        What it refuses is not even offered to the application.
        """
        talk(b"MAIL FROM:<>\r\n")

        assert (reply.wire, []) == talk(b"RCPT TO:<bob@example.org> " + parameter + b"\r\n")

    def test_verb(self, talk: Callable[[bytes], tuple[bytes, list[Recipient]]]) -> None:
        """
        Its verb is called in any state, in any case, and may refuse.
        """
        assert (b"250 2.0.0 It is now in READY\r\n", []) == talk(b"xnow\r\n")
        talk(b"MAIL FROM:<>\r\n")
        assert (b"250 2.0.0 It is now in SENDER\r\n", []) == talk(b"XNOW and then\r\n")
        assert (replies.SYNTAX.wire, []) == talk(b"XNOW never\r\n")
        assert (replies.UNKNOWN_COMMAND.wire, []) == talk(b"XTHEN\r\n")


class Counting(Extension):
    """
    Counts how often it is asked, and tells where the client is trusted.
    """

    keyword = "XCOUNT"
    asked = 0

    def is_available(self, session: ServerSession) -> bool:
        self.asked += 1
        return session.connection.is_trusted


class ByConnection(Counting):
    tells_by_connection = True


class Further(ByConnection):
    """
    Made from one that says so of itself, and not like it.
    """


@pytest.mark.parametrize(
    ("extension", "asked"), [(Counting(), 4), (ByConnection(), 2), (Further(), 4)]
)
def test_told_alike(extension: Counting, asked: int) -> None:
    """
    Extensions that look at nothing but the kind of connection are asked once for each, if all are
    like that; nobody hears what is said to others.
    """
    extensions = Extensions([Pipelining(), Size(5), extension])
    told = []
    for is_trusted in (True, False) * 2:
        session = ServerSession("mx", Limits(), extensions, Connection(is_trusted=is_trusted))
        told.append(extensions.capabilities("mx", session).wire)

    trusting = b"250-mx\r\n250-PIPELINING\r\n250-SIZE 5\r\n250 XCOUNT\r\n"
    assert [trusting, b"250-mx\r\n250-PIPELINING\r\n250 SIZE 5\r\n"] * 2 == told
    assert asked == extension.asked
