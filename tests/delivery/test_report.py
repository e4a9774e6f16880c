"""
The text of a delivery report, as mail programs read it.
"""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from email.utils import parsedate_to_datetime

import pytest
from attrs import evolve

from lmtpsvc.delivery.report import MAX_LINE, Action, Fate, Occasion, delivery_report, needs_utf8
from lmtpsvc.envelope import Address, OriginalRecipient, Recipient
from lmtpsvc.replies import Reply

SENDER = Address("me", "example.net")
BOB = Recipient(
    Address("bob", "example.org"), {"ORCPT": OriginalRecipient("rfc822", "staff@example.org")}
)
JOERG = Recipient(
    Address("jörg", "bücher.example"), {"ORCPT": OriginalRecipient("utf-8", "leute@bücher.example")}
)
DONE = Reply(250, "Delivered", (0, 0))
OCCASION = Occasion(
    "t1",
    SENDER,
    "QQ 314",
    1_700_000_000.0,
    [Fate(BOB, DONE), Fate(Recipient(Address("a b", "example.org")), Reply(250, "OK"))],
    b"Received: from x\r\n\tby y\r\nSubject: Hello\r\n\r\nThe text\r\n",
)


def report(occasion: Occasion = OCCASION, *, utf8: bool = False) -> EmailMessage:
    octets = delivery_report(occasion, "mx.example.org", 1_700_000_060.0, "bound", utf8=utf8)
    assert octets.endswith(b"\r\n")
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert max(map(len, octets.split(b"\r\n"))) <= MAX_LINE
    parsed = message_from_bytes(octets, policy=default)
    assert isinstance(parsed, EmailMessage)
    assert [] == parsed.defects
    return parsed


class TestReport:
    def test_envelope(self) -> None:
        """
        It goes to the sender, and nobody is to answer it.
        """
        said = report()

        assert "me@example.net" == said["To"].addresses[0].addr_spec
        assert "postmaster@mx.example.org" == said["From"].addresses[0].addr_spec
        assert "auto-replied" == said["Auto-Submitted"]
        assert "<t1.bound@mx.example.org>" == said["Message-ID"]
        assert "multipart/report" == said.get_content_type()
        assert "delivery-status" == said.get_param("report-type")
        assert ["text/plain", "message/delivery-status", "text/rfc822-headers"] == [
            part.get_content_type() for part in said.iter_parts()
        ]

    def test_status(self) -> None:
        """
        Fields about the message, and about each recipient (RFC 3464 §2).
        """
        about, bob, other = list(report().iter_parts())[1].iter_parts()

        assert "dns; mx.example.org" == about["Reporting-MTA"]
        assert "QQ 314" == about["Original-Envelope-Id"]
        assert about["Arrival-Date"]
        assert "rfc822; staff@example.org" == bob["Original-Recipient"]
        assert "rfc822; bob@example.org" == bob["Final-Recipient"]
        assert ("delivered", "2.0.0") == (bob["Action"], bob["Status"])
        assert bob["Last-Attempt-Date"]
        assert 'rfc822; "a b"@example.org' == other["Final-Recipient"]
        assert other["Original-Recipient"] is None

    def test_deliver_by(self) -> None:
        """
        When it had to be there is told, if the sender has said so (RFC 2852 §5).
        """
        [about, *_] = list(report().iter_parts())[1].iter_parts()
        assert "Deliver-By-Date" not in about

        [about, *_] = list(report(evolve(OCCASION, deliver_by=OCCASION.arrived - 60)).iter_parts())[
            1
        ].iter_parts()
        arrived = parsedate_to_datetime(about["Arrival-Date"])
        assert -60 == (parsedate_to_datetime(about["Deliver-By-Date"]) - arrived).total_seconds()

    @pytest.mark.parametrize(
        ("hostname", "kind"),
        [
            ("mx.example.org", "dns"),
            ("[192.0.2.1]", "dns"),
            ("[IPv6:::1]", "dns"),
            ("mx", "x-local-hostname"),
        ],
    )
    def test_reporting_mta(self, hostname: str, kind: str) -> None:
        """
        A name that nobody can look up is not said to be in DNS (RFC 3461 §6.3).
        """
        octets = delivery_report(OCCASION, hostname, 0, "bound", utf8=False)

        assert f"\r\nReporting-MTA: {kind}; {hostname}\r\n".encode() in octets

    def test_no_envelope_id(self) -> None:
        """
        What the sender has not said is left out.
        """
        about, *_ = list(report(evolve(OCCASION, envelope_id=None)).iter_parts())[1].iter_parts()
        assert about["Original-Envelope-Id"] is None

    @pytest.mark.parametrize(
        ("octets", "given_back"),
        [
            (OCCASION.headers, "Received: from x\n\tby y\nSubject: Hello\n"),
            (b"Subject: a\r\nTo: cut", "Subject: a\n"),
            (b"A: \xff\x00\nB: x\rC\r\n\r\n", "A: ?  B: x C\n"),
            (b"A: " + b"x" * 2000 + b"\r\n\r\n", "A: " + "x" * 995 + "\n"),
        ],
    )
    def test_headers(self, octets: bytes, given_back: str) -> None:
        """
        The headers come back, and nothing else, whatever a stranger has written there.
        """
        *_, returned = report(evolve(OCCASION, headers=octets)).iter_parts()

        assert given_back == str(returned.get_payload()).replace("\r\n", "\n")

    @pytest.mark.parametrize("octets", [b"", b"\r\n\r\nno headers", b"no line"])
    def test_no_headers(self, octets: bytes) -> None:
        """
        Without any, there is no third part.
        """
        assert 2 == len(list(report(evolve(OCCASION, headers=octets)).iter_parts()))


class TestUtf8:
    OCCASION = evolve(
        OCCASION,
        fates=[Fate(JOERG, DONE)],
        headers="Subject: Grüße\r\n\r\n".encode() + b"\xff",
    )

    def test_global(self) -> None:
        """
        The types of RFC 6533 have addresses and headers as they are.
        """
        octets = delivery_report(self.OCCASION, "mx", 0, "bound", utf8=True)

        assert b"Content-Type: message/global-delivery-status\r\n" in octets
        assert b"Content-Type: message/global-headers\r\n" in octets
        assert "Final-Recipient: utf-8; jörg@bücher.example\r\n".encode() in octets
        assert "Original-Recipient: utf-8; leute@bücher.example\r\n".encode() in octets
        assert "Subject: Grüße\r\n".encode() in octets

    def test_in_ascii(self) -> None:
        """
        Where that cannot be sent, addresses are written in ASCII.
        """
        octets = delivery_report(self.OCCASION, "mx", 0, "bound", utf8=False)

        assert octets.isascii()
        assert rb"Final-Recipient: utf-8; j\x{F6}rg@b\x{FC}cher.example" in octets
        assert rb"Original-Recipient: utf-8; leute@b\x{FC}cher.example" in octets
        assert b"Content-Type: message/delivery-status\r\n" in octets

    def test_needed(self) -> None:
        """
        Only for what ASCII has no words for.
        """
        assert not needs_utf8(OCCASION)
        assert needs_utf8(self.OCCASION)
        assert needs_utf8(evolve(OCCASION, headers=b"X: \xc3\xbc\r\n"))


class TestFates:
    REFUSED = Fate(BOB, Reply(550, "No such user", (1, 1)), "mx.example.org")
    WAITS = Fate(BOB, Reply(451, "Try again"), "")

    def fields(self, occasion: Occasion) -> EmailMessage:
        _, status, *_ = report(occasion).iter_parts()
        _, about = status.iter_parts()
        assert isinstance(about, EmailMessage)
        return about

    def test_failed(self) -> None:
        """
        Who is not reached is named, with what the other server said.
        """
        occasion = evolve(OCCASION, fates=[self.REFUSED], action=Action.FAILED)
        about = self.fields(occasion)

        assert ("failed", "5.1.1") == (about["Action"], about["Status"])
        assert "dns; mx.example.org" == about["Remote-MTA"]
        assert "smtp; 550 5.1.1 No such user" == about["Diagnostic-Code"]
        assert "Your message could not be delivered" == report(occasion)["Subject"]
        words = next(report(occasion).iter_parts()).get_content()
        assert "bob@example.org\r\n        mx.example.org said: 550 5.1.1 No such user\r\n" in words

    def test_too_old(self) -> None:
        """
        Who has only ever said "later" until the time was up is 4.4.7.
        """
        about = self.fields(evolve(OCCASION, fates=[self.WAITS], action=Action.FAILED))

        assert ("failed", "4.4.7") == (about["Action"], about["Status"])
        assert "smtp; 451 Try again" == about["Diagnostic-Code"]
        assert about["Remote-MTA"] is None

    def test_delayed(self) -> None:
        """
        Who has to wait is told until when.
        """
        until = 1_700_432_000.0
        waits = evolve(OCCASION, fates=[self.WAITS], action=Action.DELAYED, retry_until=until)
        about = self.fields(waits)

        assert ("delayed", "4.0.0") == (about["Action"], about["Status"])
        assert about["Will-Retry-Until"]

    def test_relayed(self) -> None:
        """
        What was passed on was not refused; what the next server said is told (RFC 3461 §6.3).
        """
        about = self.fields(evolve(OCCASION, fates=[Fate(BOB, DONE)], action=Action.RELAYED))

        assert ("relayed", "2.0.0") == (about["Action"], about["Status"])
        assert "smtp; 250 2.0.0 Delivered" == about["Diagnostic-Code"]

    @pytest.mark.parametrize("text", [b"All of it\r\n", "Schön\r\n".encode()])
    def test_content(self, text: bytes) -> None:
        """
        The whole message comes back if it is to, and says if it is not ASCII.
        """
        whole = b"Subject: x\r\n\r\n" + text
        octets = delivery_report(evolve(OCCASION, content=whole), "mx", 0, "bound", utf8=False)

        assert b"Content-Type: message/rfc822\r\n" in octets
        assert b"\r\n\r\n" + whole + b"\r\n--bound--" in octets
        assert text.isascii() == (b"Content-Transfer-Encoding: 8bit" not in octets)

    @pytest.mark.parametrize("text", [b"a\nb\r\n", b"\0\r\n", b"x" * 999 + b"\r\n"])
    def test_unfit(self, text: bytes) -> None:
        """
        Of what is no text, only the headers come back.
        """
        occasion = evolve(OCCASION, content=b"Subject: x\r\n\r\n" + text)

        *_, returned = report(occasion).iter_parts()
        assert "text/rfc822-headers" == returned.get_content_type()
