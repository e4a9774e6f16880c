"""
LIMITS, DELIVERBY, MT-PRIORITY, REQUIRETLS, RRVS; HELP and the verbs of old.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import evolve

from lmtpsvc import replies
from lmtpsvc.envelope import Address, DeliverBy, ValidSince
from lmtpsvc.limits import Limits
from lmtpsvc.replies import MultilineReply, Reply
from lmtpsvc.session.connection import Connection
from lmtpsvc.session.deliver_by import deliver_by
from lmtpsvc.session.extensions import Extensions
from lmtpsvc.session.help import SYNTAX, help_on
from lmtpsvc.session.priority import Priorities, priority
from lmtpsvc.session.require_tls import RequireTLS
from lmtpsvc.session.server import ServerSession
from lmtpsvc.session.standard import standard_extensions
from lmtpsvc.session.valid_since import ValidSinceThen, valid_since
from lmtpsvc.wire.commands import CommandError

from ..rows import each_row

ANN = Address("ann", "example.org")
TLS = Connection("192.0.2.1", tls=True)


def session_with(extensions: Extensions, connection: Connection | None = None) -> ServerSession:
    session = ServerSession("mx", Limits(), extensions, connection or Connection("192.0.2.1"))
    session.data_to_send()
    return session


def says(session: ServerSession, *said: bytes) -> list[bytes]:
    """
    The answers to what is said, each in a packet of its own.
    """
    for packet in said:
        session.receive(packet)
        assert session.next_event() is None
    return session.data_to_send().splitlines()


def refusal_of(read: Callable[[str | None], Any], value: str | None) -> Reply:
    with pytest.raises(CommandError) as caught:
        read(value)
    return caught.value.reply


class TestLimits:
    @pytest.mark.parametrize(
        ("recipients", "announced"),
        [(1, [b"LIMITS RCPTMAX=1"]), (999_999, [b"LIMITS RCPTMAX=999999"]), (1_000_000, [])],
    )
    def test_announced(self, recipients: int, announced: list[bytes]) -> None:
        """
        The number of recipients, if six digits are enough for it (RFC 9422 §4.2).
        """
        session = session_with(standard_extensions(Limits(recipients=recipients)))

        lines = says(session, b"LHLO x\r\n")

        assert announced == [line[4:] for line in lines if line[4:].startswith(b"LIMITS")]


class TestDeliverBy:
    @pytest.mark.parametrize(
        ("value", "read"),
        [
            ("120;R", DeliverBy(120, True)),
            ("+120;r", DeliverBy(120, True)),
            ("-5;N", DeliverBy(-5, False)),
            ("0;nT", DeliverBy(0, False, True)),
            ("999999999;RT", DeliverBy(999_999_999, True, True)),
        ],
    )
    def test_read(self, value: str, read: DeliverBy) -> None:
        """
        Seconds, what to do then, and whether to trace.
        """
        assert read == deliver_by(value)

    @each_row(
        "value",
        [
            *(None, "", "120", "120;", "120;X", "120;TR", "1234567890;R", "0;R", "-1;R", "x;N"),
            *("1.5;N", "++1;N", "١;N", "120;R;T", "120; N"),
        ],
    )
    def test_refused(self, value: str | None) -> None:
        """
        Nothing can be delivered by now or before, if it is to be returned then (RFC 2852 §4).
        """
        assert replies.BAD_PARAMETER == refusal_of(deliver_by, value)


class TestPriority:
    def test_read(self) -> None:
        """
        From -9 to 9.
        """
        assert list(range(-9, 10)) == [priority(str(number)) for number in range(-9, 10)]

    @each_row("value", [None, "", "-0", "+1", "10", "-10", "01", "1.0", "x", "٣"])
    def test_refused(self, value: str | None) -> None:
        """
        One digit, and a minus if need be.
        """
        assert replies.BAD_PARAMETER == refusal_of(priority, value)

    @pytest.mark.parametrize(
        ("connection", "asked", "given"),
        [
            (Connection("192.0.2.1"), 9, 0),
            (Connection("192.0.2.1"), 1, 0),
            (Connection("192.0.2.1"), 0, 0),
            (Connection("192.0.2.1"), -9, -9),
            (Connection("local"), 9, 0),
            (Connection("192.0.2.1", is_trusted=True), 9, 9),
        ],
    )
    def test_who_may_be_urgent(self, connection: Connection, asked: int, given: int) -> None:
        """
        Only who is trusted, and who is not is told (RFC 6710 §4.1); anybody may wait.
        """
        session = session_with(Extensions([Priorities()]), connection)
        said = b"MAIL FROM:<ann@example.org> MT-PRIORITY=%d\r\n" % asked

        answer = says(session, b"LHLO x\r\n", said)[-1]
        told = b"250 2.3.6 0 is the" if asked != given else b"250 2.1.0"
        assert answer.startswith(told)

    def test_who_has_logged_in(self) -> None:
        """
        He is known, and believed.
        """
        registry = Extensions([Priorities()])
        session = session_with(registry)
        session.client = evolve(session.client, login="ann")
        sender = registry.sender(session, ANN, {"MT-PRIORITY": "9"})

        assert (sender, replies.SENDER_OK) == registry.changed(session, sender)
        session.client = evolve(session.client, login="")
        changed, reply = registry.changed(session, sender)
        assert (0, replies.NOT_URGENT) == (changed.priority, reply)


class TestRequireTLS:
    def test_over_tls(self) -> None:
        """
        Announced, and carried.
        """
        registry = Extensions([RequireTLS()])
        session = session_with(registry, TLS)

        assert [b"250-mx", b"250 REQUIRETLS"] == says(session, b"LHLO x\r\n")
        assert registry.sender(session, ANN, {"REQUIRETLS": None}).requires_tls
        assert not registry.sender(session, ANN, {}).requires_tls
        with pytest.raises(CommandError):
            registry.sender(session, ANN, {"REQUIRETLS": "yes"})

    def test_in_clear(self) -> None:
        """
        Who has sent it in the clear cannot ask that nobody else does.
        """
        session = session_with(Extensions([RequireTLS()]))

        assert [b"250 mx"] == says(session, b"LHLO x\r\n")
        assert [replies.UNKNOWN_PARAMETER.wire[:-2]] == says(
            session, b"MAIL FROM:<> REQUIRETLS\r\n"
        )


class TestValidSince:
    @pytest.mark.parametrize(
        ("value", "read"),
        [
            ("2024-05-01T12:00:00Z", ValidSince(datetime(2024, 5, 1, 12, tzinfo=UTC))),
            ("2024-05-01t12:00:00z;c", ValidSince(datetime(2024, 5, 1, 12, tzinfo=UTC), "C")),
            (
                "2024-05-01T12:00:00.25-02:30;R",
                ValidSince(
                    datetime(
                        2024, 5, 1, 12, 0, 0, 250_000, timezone(timedelta(hours=-2, minutes=-30))
                    ),
                    "R",
                ),
            ),
            ("2016-12-31T23:59:60Z", ValidSince(datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC))),
            (
                "2024-05-01T12:00:00.123456789Z",
                ValidSince(datetime(2024, 5, 1, 12, 0, 0, 123_456, UTC)),
            ),
        ],
    )
    def test_read(self, value: str, read: ValidSince) -> None:
        """
        A date and a time with its zone, as RFC 3339 writes it.
        """
        assert read == valid_since(value)

    @each_row(
        "value",
        [
            *(None, "", "2024-05-01", "2024-05-01T12:00:00", "2024-13-01T12:00:00Z"),
            *("2024-05-01T12:00Z", "2024-05-01 12:00:00Z", "2024-05-01T25:00:00Z"),
            *("20240501T120000Z", "2024-05-01T12:00:00Z;X", "2024-05-01T12:00:00Z;"),
            *("2024-05-01T12:00:00+99:99", "٢024-05-01T12:00:00Z"),
        ],
    )
    def test_refused(self, value: str | None) -> None:
        """
        No other way to write it will do.
        """
        assert replies.BAD_PARAMETER == refusal_of(valid_since, value)

    def test_announced(self) -> None:
        """
        Only as long as somebody knows who had a mailbox when.
        """
        known: list[bool] = []
        session = session_with(Extensions([ValidSinceThen(lambda: bool(known))]))

        assert [b"250 mx"] == says(session, b"LHLO x\r\n")
        known.append(True)
        assert [b"250-mx", b"250 RRVS"] == says(session, b"LHLO x\r\n")


class TestHelp:
    def test_verbs(self) -> None:
        """
        HELP lists the session's verbs, and those of extensions that are there for this client.
        """
        answer = help_on(b"", {b"XNOW": ""})
        assert isinstance(answer, MultilineReply)
        assert (
            "LMTP, RFC 2033: LHLO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT XNOW" == answer.lines[0]
        )

    @each_row("verb", [*SYNTAX, b"XNOW"])
    def test_of_a_verb(self, verb: bytes) -> None:
        """
        HELP and a verb, in any case, says how that is written.
        """
        answer = help_on(verb.lower(), {b"XNOW": "or never"})
        assert answer.lines[0].startswith(f"Syntax: {verb.decode()}")

    def test_of_nothing(self) -> None:
        """
        What is no verb has no help.
        """
        with pytest.raises(CommandError) as caught:
            help_on(b"me", {})
        assert replies.NO_SUCH_TOPIC == caught.value.reply


class TestOldVerbs:
    TALK = b"VERB\r\nONEX\r\nSEND FROM:<>\r\nSOML\r\nSAML\r\nTURN\r\nETRN x\r\nATRN\r\nEXPN a\r\n"

    @pytest.mark.parametrize("step", [1, 1000])
    def test_old_verbs(self, step: int) -> None:
        """
        Two are harmless, all others are refused, in every state.
        """
        packets = [self.TALK[at : at + step] for at in range(0, len(self.TALK), step)]
        session = session_with(standard_extensions(Limits()))

        heard = [line[:9] for line in says(session, *packets)]

        assert [b"250 2.0.0"] * 2 + [b"502 5.5.1"] * 7 == heard
