"""
What is in the tables after a delivery, in each kind of database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql
from twisted.internet.defer import CancelledError

from lmtpsvc.delivery.content import MemoryContent
from lmtpsvc.delivery.message import Message
from lmtpsvc.delivery.trace import delivered_to_header, trace_headers
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure, TemporaryFailure
from lmtpsvc.quota import ignoring_quota, with_declared_size
from lmtpsvc.testing import MemoryMessage, envelope

from .conftest import Bench

TEXT = b"Subject: one\r\n\r\nOne.\r\n"


def received(text: bytes, *recipients: str, id: str = "0123456789abcdef") -> Message:
    """
    A message as the service makes it, with trace headers on top.
    """
    who = envelope(*recipients)
    head = trace_headers(who, id, "mx.example.org", 1_700_000_000.0, "single")
    return Message(id, who, 240.0, MemoryContent(head, [text]), head)


class TestTexts:
    def test_octet_for_octet(self, bench: Bench) -> None:
        """
        What is read is what was sent: any octet, bare CR and LF, no line end at the end.
        """
        text = b"Subject: x\r\n\r\n" + bytes(range(256)) + b"\r\n.\n\r.\r\nend"

        assert [None] == bench.deliver(text, "ann@example.org")
        assert [text] == bench.texts("ann@example.org")

    @pytest.mark.parametrize("compression", ["none", "zlib"])
    @pytest.mark.parametrize("octets", [0, 1, 262144, 262145, 3_000_000])
    def test_sizes(
        self, url: str, make_bench: Callable[..., Bench], compression: str, octets: int
    ) -> None:
        """
        None at all, as much as fits into one part, and more; compressed or not.
        """
        bench = make_bench(url, compression=compression)
        text = (b"0123456789abcde\n" * (octets // 16 + 1))[:octets]

        assert [None] == bench.deliver(text, "ann@example.org")
        assert [text] == bench.texts("ann@example.org")
        (stored,) = bench.store.messages("ann@example.org")
        assert (stored.size, stored.digest) == (octets, hashlib.sha256(text).hexdigest())
        if compression == "zlib" and octets > 100:
            with bench.engine.connect() as connection:
                query = sql("SELECT sum(length(octets)) FROM content_part")
                assert connection.execute(query).scalar_one() < octets / 10

    def test_fifty_recipients_one_body(self, bench: Bench) -> None:
        """
        However many get a message, its text is stored once.
        """
        names = [f"user{n}@example.org" for n in range(50)]

        assert [None] * 50 == bench.deliver(TEXT, *names)
        assert (50, 1, 1) == tuple(map(bench.count, ("delivery", "content", "content_part")))
        assert {TEXT} == {text for name in names for text in bench.texts(name)}

    def test_another_transaction_one_body(self, bench: Bench) -> None:
        """
        The same text, sent again, has other trace headers and the same body.
        """
        first = received(TEXT, "ann@example.org", id="1111111111111111")
        second = received(TEXT, "bob@example.org", id="2222222222222222")
        for message, user in ((first, "ann"), (second, "bob")):
            bench.backend.deliver(message, [Mailbox(user, "example.org")])
        bench.pool.work()

        assert (2, 1) == (bench.count("delivery"), bench.count("content"))
        for message, name in ((first, "ann@example.org"), (second, "bob@example.org")):
            with message.open() as file:
                assert [file.read()] == bench.texts(name)
        (row,) = bench.store.messages("ann@example.org")
        assert row.digest == hashlib.sha256(TEXT).hexdigest()

    def test_delivered_to_each(self, bench: Bench) -> None:
        """
        Each its own Delivered-To, and one body all the same.
        """
        message = received(TEXT, "ann@example.org", "bob@example.org")
        for recipient, user in zip(message.envelope.recipients, ("ann", "bob"), strict=True):
            own = message.headed(delivered_to_header(recipient))
            bench.backend.deliver(own, [Mailbox(user, "example.org")])
        bench.pool.work()

        assert 1 == bench.count("content")
        (text,) = bench.texts("bob@example.org")
        assert text.startswith(b"Delivered-To: bob@example.org\r\nReturn-Path:")
        assert text.endswith(TEXT)

    def test_a_clients_own_received(self, bench: Bench) -> None:
        """
        Headers that look like ours and came with the text belong to the text; what is on top
        stays known as such.
        """
        text = b"Received: from a\r\n\tby b; date\r\n" + TEXT
        bench.backend.deliver(received(text, "ann@example.org"), [Mailbox("ann", "example.org")])
        bench.pool.work()
        bench.deliver(text, "bob@example.org")

        assert 1 == bench.count("content")
        (row,) = bench.store.messages("ann@example.org")
        assert 1 == row.trace.count(b"Received:")
        assert [text] == bench.texts("bob@example.org")
        assert bench.texts("ann@example.org")[0].endswith(text)

    def test_a_digest_is_not_believed(self, bench: Bench) -> None:
        """
        Whoever claims somebody else's digest does not get somebody else's mail.
        """

        class Liar(MemoryMessage):
            digest = hashlib.sha256(TEXT).hexdigest()

        bench.deliver(TEXT, "ann@example.org")
        bench.backend.deliver(Liar(b"other"), [Mailbox("bob", "example.org")])
        bench.pool.work()

        assert [b"other"] == bench.texts("bob@example.org")


class TestRows:
    def test_columns(self, bench: Bench) -> None:
        """
        Envelope, time, size and headers are there to be searched.
        """
        text = (
            b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.net>\r\nSubject: =?iso-8859-1?q?H=E4?=\r\n x\r\n"
            b"Date: Mon, 2 Nov 2026 10:00:00 +0100\r\nMessage-ID: <1@example.net>\r\n\r\nHello\r\n"
        )
        before = datetime.now(UTC) - timedelta(seconds=1)
        bench.deliver(text, "ann@example.org", envelope=envelope("Ann@example.org", sender=""))

        (row,) = bench.store.messages("ann@example.org")
        assert (row.uid, row.size, row.flags) == (1, len(text), frozenset())
        assert ("", "Ann@example.org", "0123456789abcdef") == (
            row.sender,
            row.recipient,
            row.transaction,
        )
        assert before < row.received < datetime.now(UTC) + timedelta(seconds=1)
        assert ("Jürgen <j@example.net>", "Hä x") == (row.from_, row.subject)
        assert datetime(2026, 11, 2, 9, tzinfo=UTC) == row.date
        assert "<1@example.net>" == row.message_id

    @pytest.mark.parametrize(
        "header",
        [
            b"Subject: \x00\xff\xfe\r\n",
            b"Subject: =?utf-8?b?AAAA?= =?nonsense?q?x?= =?utf-16?b?2D0=?=\r\n",
            b"Subject: " + "\U0001f4a9".encode() * 5000 + b"\r\n",
            b"From: " + b"(" * 3000 + b"\r\n",
            b"Message-ID: <\r\nDate: 31 Feb 99999\r\n",
            b"Date: Mon, 1 Jan 0001 00:00:00 +2359\r\n",
            b"Date: Fri, 31 Dec 9999 23:59:59 -2359\r\n",
            b"Date: Sat, 1 Jan 0999 00:00:00 +0000\r\n",
            b"no header at all",
            b"\r\n",
        ],
    )
    def test_broken_headers(self, bench: Bench, header: bytes) -> None:
        """
        Whatever is written there, the mail comes.
        """
        text = header + b"X: y\r\n\r\nHello\r\n"

        assert [None] == bench.deliver(text, "ann@example.org")
        assert [text] == bench.texts("ann@example.org")

    @pytest.mark.parametrize(
        ("recipients", "mailbox", "expected"),
        [
            (("list@example.org",), Mailbox("ann", "example.com"), "list@example.org"),
            (("bob@x.org", "Ann+a@x.org"), Mailbox("ann", "x.org", "a"), "Ann+a@x.org"),
            (("bob@x.org", "ANN@x.org"), Mailbox("ann", "x.org"), "ANN@x.org"),
            (("bob@x.org", "list@x.org"), Mailbox("ann", "x.org"), None),
            (
                ("bob@bücher.example", "ann@bücher.example"),
                Mailbox("ann", "xn--bcher-kva.example"),
                "ann@bücher.example",
            ),
        ],
    )
    def test_original_recipient(
        self, bench: Bench, recipients: tuple[str, ...], mailbox: Mailbox, expected: str | None
    ) -> None:
        """
        It is what the client said, where that is certain.
        """
        bench.deliver(TEXT, mailbox, envelope=envelope(*recipients))

        (row,) = bench.store.messages(f"ann@{mailbox.domain}")
        assert expected == row.recipient

    def test_names_are_exact(self, bench: Bench) -> None:
        """
        Neither case nor accents nor a blank at the end make two people one.
        """
        names = ["ann", "Ann", "änn", "ann ", "aNn"]
        boxes = [Mailbox(name, "") for name in names]

        assert [None] * 5 == bench.deliver(TEXT, *boxes)
        assert 5 == bench.count("mailbox")
        assert sorted(['"ann "', "Ann", "aNn", "ann", "änn"]) == sorted(
            box.name for box in bench.store.mailboxes()
        )

    @pytest.mark.parametrize("user", ["", "a" * 320, "a\0b", "a\nb"])
    def test_names_that_do_not_fit(self, bench: Bench, user: str) -> None:
        """
        They are refused at RCPT, and alone if they come without.
        """
        mailbox = Mailbox(user, "example.org")
        with pytest.raises(PermanentFailure):
            bench.backend.verify(mailbox)

        first, second = bench.deliver(TEXT, mailbox, "ann@example.org")

        assert isinstance(first, PermanentFailure)
        assert second is None


class TestUIDs:
    def test_one_after_the_other(self, bench: Bench) -> None:
        """
        They start at 1 and leave nothing out, in one transaction as in several.
        """
        for n in range(3):
            bench.begin(b"%d" % n, "ann@example.org", "bob@example.org")
        bench.pool.work()
        bench.deliver(b"3", "ann@example.org")

        assert [1, 2, 3, 4] == bench.uids("ann@example.org")
        assert [b"0", b"1", b"2", b"3"] == bench.texts("ann@example.org")
        box = bench.store.mailbox("ann@example.org")
        assert (box.uidnext, box.messages, box.octets) == (5, 4, 4)
        assert 0 < box.uidvalidity < 1 << 32

    def test_named_twice(self, bench: Bench) -> None:
        """
        A mailbox that is named twice has one copy, and both are told.
        """
        both = [Mailbox("ann", "example.org"), Mailbox("ann", "example.org", "lists")]

        assert [None, None] == bench.deliver(TEXT, *both)
        assert [1] == bench.uids("ann@example.org")

    def test_more_than_fit_into_one(self, bench: Bench) -> None:
        """
        Many recipients are several transactions, and one body.
        """
        names = [f"user{n}@example.org" for n in range(1000)]

        assert [None] * 1000 == bench.deliver(TEXT, *names)
        assert (1000, 1) == (bench.count("delivery"), bench.count("content"))


class TestCancelling:
    def test_before(self, bench: Bench) -> None:
        """
        Who is called off in time gets nothing, and leaves nothing, not even a gap.
        """
        first = bench.begin(b"1", "ann@example.org", "bob@example.org")
        second = bench.begin(b"2", "ann@example.org")
        first[0].cancel()
        first[1].cancel()
        bench.pool.work()

        assert [None] == [_result(each) for each in second]
        assert all(isinstance(_result(each), CancelledError) for each in first)
        assert ([1], 1) == (bench.uids("ann@example.org"), bench.count("content"))

    def test_one_of_a_message(self, bench: Bench) -> None:
        """
        The others have it all the same.
        """
        ann, bob = bench.begin(TEXT, "ann@example.org", "bob@example.org")
        ann.cancel()
        bench.pool.work()

        assert isinstance(_result(ann), CancelledError)
        assert _result(bob) is None
        assert ([], [1]) == (bench.uids("ann@example.org"), bench.uids("bob@example.org"))

    def test_while_it_is_written(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Called off between the text and the rows, it leaves nothing; after that, it is delivered.
        """
        from lmtpsvc.backends.sql.writing import Writing

        boxes, update = Writing._boxes, Writing._update
        now: dict[str, Any] = {}

        def cancel_before(self: Writing, *words: Any) -> Any:
            now["early"].cancel()
            return boxes(self, *words)

        def cancel_after(self: Writing, found: Any) -> Any:
            now["late"].cancel()
            update(self, found)

        monkeypatch.setattr(Writing, "_boxes", cancel_before)
        monkeypatch.setattr(Writing, "_update", cancel_after)
        (now["early"],) = bench.begin(b"early", "ann@example.org")
        (now["late"],) = bench.begin(b"late", "ann@example.org")
        bench.pool.work()

        assert isinstance(_result(now["early"]), CancelledError)
        assert _result(now["late"]) is None
        assert [b"late"] == bench.texts("ann@example.org")
        assert 1 == bench.count("content") == bench.count("content_part")


class TestQuota:
    def full(self, octets: str, user: str = "ann") -> Mailbox:
        return Mailbox(user, "example.org", attributes={"quota_octets": octets})

    def test_the_others_have_it(self, bench: Bench) -> None:
        """
        Who is over quota is told so, alone.
        """
        text = b"x" * 1000
        assert [None] == bench.deliver(text, self.full("2000"))
        assert [None] == bench.deliver(text, self.full("2000"))

        ann, bob = bench.deliver(text, self.full("2000"), "bob@example.org")

        assert isinstance(ann, TemporaryFailure)
        assert str(ann.reply).startswith("452 4.2.2")
        assert bob is None
        assert (2, 2000) == bench.sums("ann@example.org")

    def test_in_one_transaction(self, bench: Bench) -> None:
        """
        Deliveries that wait at the same moment are counted one after the other.
        """
        results = [bench.begin(b"%d" % n * 1000, self.full("2K")) for n in range(4)]
        bench.pool.work()

        fine = [_result(each) is None for (each,) in results]
        assert [True, True, False, False] == fine
        assert (2, 2000) == bench.sums("ann@example.org")
        assert 2 == bench.count("content"), "nothing is left of the others"

    def test_for_good(self, url: str, make_bench: Callable[..., Bench]) -> None:
        """
        The operator may want it returned at once.
        """
        (ann,) = make_bench(url, full="552").deliver(b"xy", self.full("1"))

        assert isinstance(ann, PermanentFailure)
        assert str(ann.reply).startswith("552 5.2.2")

    def test_makes_room(self, bench: Bench) -> None:
        """
        What is deleted counts no more.
        """
        bench.deliver(b"x" * 1000, self.full("1000"))
        assert 1 == bench.store.delete("ann@example.org", [1])

        assert [None] == bench.deliver(b"y" * 1000, self.full("1000"))
        assert [2] == bench.uids("ann@example.org")

    def test_is_no_number(self, bench: Bench) -> None:
        """
        A slip in the directory loses no mail.
        """
        with pytest.raises(TemporaryFailure):
            bench.backend.verify(self.full("lots"))

    def test_at_rcpt(self, bench: Bench) -> None:
        """
        What the client announces is known not to fit before it is sent.
        """
        bench.deliver(b"x" * 1000, "ann@example.org")
        sizes = {0: None, 1000: None, 1001: "452"}

        for size, code in sizes.items():
            verdict = bench.backend.verify(with_declared_size(self.full("2000"), size))
            assert verdict is not None
            refusal = _result(verdict)
            assert code == (None if refusal is None else str(getattr(refusal, "reply", ""))[:3])

    def test_for_everybody(self, url: str, make_bench: Callable[..., Bench]) -> None:
        """
        A quota in the words of the backend counts where the directory says nothing.
        """
        bench = make_bench(url, quota="1G,1")

        assert [None] == bench.deliver(b"1", "ann@example.org")
        assert [None] != bench.deliver(b"2", "ann@example.org")
        assert [None] == bench.deliver(b"2", self.full("1G"))

    def test_ignored(self, bench: Bench) -> None:
        """
        Who may ignore the quota delivers to a full mailbox, and what he delivers is counted.
        """
        ann = self.full("1500")
        text = b"x" * 1000
        assert [None] == bench.deliver(text, ann)
        assert [None] == bench.deliver(text, ignoring_quota(ann))
        assert [None] != bench.deliver(b"", ann)


def _result(deferred: Any) -> object:
    from .conftest import outcome

    return outcome(deferred)


def test_a_large_message(bench: Bench, tmp_path: Path) -> None:
    """
    50 MB come through, in parts.
    """
    text = bytes(range(256)) * 195_313

    assert [None, None] == bench.deliver(text, "ann@example.org", "bob@example.org")
    with bench.store.open("ann@example.org", 1) as file:
        digest = hashlib.file_digest(BytesIO(file.read()), "sha256").hexdigest()
    assert hashlib.sha256(text).hexdigest() == digest
    assert 1 == bench.count("content")
