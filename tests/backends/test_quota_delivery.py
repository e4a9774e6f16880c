"""
Mail over quota: who is refused when, and what it costs those who have none.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from lmtpsvc.backends.calls import HastyCalls
from lmtpsvc.backends.maildir import MaildirBackend, MaildirFactory
from lmtpsvc.backends.maildirsize import recount
from lmtpsvc.backends.settings import from_words
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError
from lmtpsvc.quota import Quota, ignoring_quota, with_declared_size
from lmtpsvc.testing import MemoryMessage

Make = Callable[..., MaildirBackend]

ANN, BOB, CY = (Mailbox(user, "example.org") for user in ("ann", "bob", "cy"))

#: 100 octets with LF, 102 with CRLF.
HUNDRED = MemoryMessage(b"Subject: x\r\n" + b"x" * 88 + b"\r\n", id="hundred")


def limited(mailbox: Mailbox, octets: int, messages: int = 0) -> Mailbox:
    """
    *mailbox* as a directory knows it that gives it a quota.
    """
    attributes = Quota(octets, messages).attributes()
    return Mailbox(mailbox.user, mailbox.domain, mailbox.detail, attributes=attributes)


@pytest.fixture
def says(root: Path) -> Callable[[Mailbox], str | None]:
    """
    ``says(ANN)``: the lines of her maildirsize, with blanks between; None if there is none.
    """

    def says(mailbox: Mailbox) -> str | None:
        path = root / mailbox.domain / mailbox.user / "maildirsize"
        return " ".join(path.read_text().splitlines()) if path.exists() else None

    return says


@pytest.fixture
def number(root: Path) -> Callable[[Mailbox], int]:
    """
    ``number(ANN)``: of messages in her INBOX.
    """
    return lambda mailbox: len(list((root / mailbox.domain / mailbox.user).glob("new/*")))


class TestSettings:
    @pytest.mark.parametrize(
        ("word", "quota"),
        [
            ("1G", Quota(1 << 30)),
            ("1G,10000", Quota(1 << 30, 10_000)),
            ("0,5", Quota(0, 5)),
            ("0", None),
        ],
    )
    def test_option(self, word: str, quota: Quota | None) -> None:
        """
        What each mailbox may hold; nobody is limited by nothing.
        """
        assert quota == from_words("/srv", {"quota": word}).quota

    def test_default(self) -> None:
        """
        Without the option, there is no quota.
        """
        assert from_words("/srv", {}).quota is None

    def test_mistake(self) -> None:
        """
        A mistake is told in one line.
        """
        with pytest.raises(ValueError, match=r"^quota: 'much' is no quota; write 1G"):
            from_words("/srv", {"quota": "much"})

    def test_help(self) -> None:
        """
        It stands among the other options.
        """
        assert "[:quota=1G,10000]" in MaildirFactory.synopsis
        assert "\nquota " in MaildirFactory.help


class TestVerify:
    def test_no_quota(self, maildir: Make, held_pool: Any) -> None:
        """
        Without a quota, the answer is there at once.
        """
        backend = maildir(held_pool)
        held_pool.work()

        assert backend.verify(with_declared_size(ANN, 10**12)) is None
        assert backend.verify(limited(ANN, 0)) is None
        assert [] == held_pool.jobs

    def test_in_a_thread(self, maildir: Make, held_pool: Any, no_result: Any) -> None:
        """
        A quota is looked at in a thread.
        """
        held_pool.submit = lambda job: held_pool.run(job) or Deferred()
        backend = maildir(held_pool)
        result = backend.verify(limited(ANN, 1000))

        assert result is not None
        no_result(result)

    def test_many_sizes(self, maildir: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        However many sizes are announced for a mailbox, it is not looked for among them: the thousandth
        would take a thousand times as long as the first.
        """
        compared = 0
        same = Mailbox.__eq__

        def compare(mailbox: Mailbox, other: object) -> bool:
            nonlocal compared
            compared += 1
            return same(mailbox, other)

        backend = maildir()
        monkeypatch.setattr(Mailbox, "__eq__", compare)
        for size in range(100):
            assert backend.verify(with_declared_size(ANN, size)) is None
        assert compared <= 100

    @pytest.mark.parametrize(("full", "reply"), [("452", "452 4.2.2"), ("552", "552 5.2.2")])
    def test_full(
        self, maildir: Make, success_of: Any, failure_of: Any, full: str, reply: str
    ) -> None:
        """
        A mailbox without room for what the client announces is refused, as the operator says it.
        """
        backend = maildir(quota="250", full=full)
        for _ in range(2):
            [result] = backend.deliver(HUNDRED, [ANN])
            success_of(result)

        success_of(backend.verify(ANN))
        success_of(backend.verify(with_declared_size(ANN, 50)))
        refused = failure_of(backend.verify(with_declared_size(ANN, 51)), DeliveryError)
        assert f"{reply} Mailbox full" == str(refused.value.reply)
        # Nobody else is.
        success_of(backend.verify(with_declared_size(BOB, 250)))

    def test_attributes_first(self, maildir: Make, success_of: Any, failure_of: Any) -> None:
        """
        What the directory says counts more than the option, "no limit" as well.
        """
        backend = maildir(quota="100")
        size = 1000

        failure_of(backend.verify(with_declared_size(ANN, size)), DeliveryError)
        success_of(backend.verify(with_declared_size(limited(ANN, size), size)))
        assert backend.verify(with_declared_size(limited(ANN, 0), size)) is None

    def test_nonsense(self, maildir: Make) -> None:
        """
        A quota that is no number is "later" in the words of SMTP, and not "no limit".
        """
        backend = maildir()
        ann = Mailbox("ann", "example.org", attributes={"quota_octets": "much"})

        with pytest.raises(DeliveryError) as caught:
            backend.verify(ann)
        assert "451 4.2.0" == str(caught.value.reply)[:9]
        [result] = backend.deliver(HUNDRED, [ann])
        result.addErrback(lambda failure: failure.trap(DeliveryError))

    def test_cannot_be_known(
        self,
        maildir: Make,
        failure_of: Any,
        success_of: Any,
        break_call: Callable[..., None],
    ) -> None:
        """
        If the file cannot be read, nobody is told that the mailbox is full.
        """
        backend = maildir(quota="1000")
        for _ in range(2):
            success_of(backend.deliver(HUNDRED, [ANN])[0])
        break_call("read", "maildirsize", errno.EIO)

        refused = failure_of(backend.verify(ANN), DeliveryError)
        assert "451" == str(refused.value.reply)[:3]


class TestDelivery:
    def test_sums(
        self, maildir: Make, success_of: Any, says: Any, number: Any, root: Path, way: str
    ) -> None:
        """
        Each message adds its size, with the line endings that it is stored with.
        """
        backend = maildir(quota="1G,10000")
        for _ in range(3):
            success_of(backend.deliver(HUNDRED, [ANN])[0])

        assert "1073741824S,10000C 100 1 100 1 100 1" == says(ANN)
        assert 3 == number(ANN)

    def test_ignored(
        self, maildir: Make, success_of: Any, failure_of: Any, says: Any, way: str
    ) -> None:
        """
        Who may ignore the quota delivers to a full mailbox, and what he delivers is counted.
        """
        backend = maildir(quota="150")
        success_of(backend.deliver(HUNDRED, [ANN])[0])

        assert backend.verify(with_declared_size(ignoring_quota(ANN), 100)) is None
        success_of(backend.deliver(HUNDRED, [ignoring_quota(ANN)])[0])

        assert "150S 100 1 100 1" == says(ANN)
        failure_of(backend.deliver(HUNDRED, [ANN])[0], DeliveryError)
        failure_of(backend.verify(ANN), DeliveryError)

    def test_crlf(self, maildir: Make, success_of: Any, says: Any) -> None:
        """
        Where lines end with CRLF, that is what takes the room.
        """
        backend = maildir(quota="1000", newline="crlf")
        for _ in range(2):
            success_of(backend.deliver(HUNDRED, [ANN])[0])

        assert "1000S 102 1 102 1" == says(ANN)

    @pytest.mark.parametrize(("full", "reply"), [("452", "452 4.2.2"), ("552", "552 5.2.2")])
    def test_one_of_three(
        self,
        maildir: Make,
        success_of: Any,
        failure_of: Any,
        says: Any,
        number: Any,
        full: str,
        reply: str,
        way: str,
        leftovers: Callable[[], list[str]],
    ) -> None:
        """
        One over quota does not touch the others, whichever it is, and nothing of it is written.
        """
        for position in range(3):
            backend = maildir(full=full)
            mailboxes = [limited(BOB, 1000), CY]
            mailboxes.insert(position, limited(ANN, 99))
            results = backend.deliver(HUNDRED, mailboxes)

            refused = failure_of(results.pop(position), DeliveryError)
            assert f"{reply} Mailbox full" == str(refused.value.reply)
            for result in results:
                success_of(result)

        assert (0, 3, 3) == (number(ANN), number(BOB), number(CY))
        assert "1000S 100 1 100 1 100 1" == says(BOB)
        assert says(CY) is None
        assert [] == leftovers()

    def test_all_full(
        self, maildir: Make, failure_of: Any, leftovers: Callable[[], list[str]], way: str
    ) -> None:
        """
        If all are full, nothing is written.
        """
        for result in maildir(quota="99").deliver(HUNDRED, [ANN, BOB]):
            failure_of(result, DeliveryError)

        assert [] == leftovers()

    def test_last_room(
        self,
        together: Any,
        maildir: Make,
        held_pool: Any,
        success_of: Any,
        failure_of: Any,
        number: Any,
        says: Any,
    ) -> None:
        """
        Of messages that go to disk together, as many get in as have room.
        """
        backend = maildir(held_pool, quota="250")
        messages = [MemoryMessage(HUNDRED.text, id=f"{number}") for number in range(4)]
        results = together(backend, [(message, [ANN]) for message in messages])
        held_pool.work()

        for [result] in results[:2]:
            success_of(result)
        for [result] in results[2:]:
            failure_of(result, DeliveryError)
        assert 2 == number(ANN)
        # There was no file to add to yet: the next one counts.
        assert says(ANN) is None
        [late] = backend.deliver(HUNDRED, [ANN])
        held_pool.work()
        failure_of(late, DeliveryError)
        assert "250S 200 2" == says(ANN)

    @pytest.mark.parametrize(
        ("call", "where"),
        [
            ("open", "ann/tmp/"),
            ("write", "ann/tmp/"),
            ("rename", "ann/new/"),
            ("fsync", "ann/new"),
        ],
    )
    def test_failed(
        self,
        maildir: Make,
        break_call: Callable[..., None],
        success_of: Any,
        failure_of: Any,
        says: Any,
        call: str,
        where: str,
        way: str,
    ) -> None:
        """
        A delivery that fails leaves the sums as they were, and the room free.
        """
        backend = maildir(quota="300")
        for _ in range(2):
            success_of(backend.deliver(HUNDRED, [ANN])[0])
        before = says(ANN)
        break_call(call, where, errno.EIO)
        failure_of(backend.deliver(HUNDRED, [ANN])[0], DeliveryError)

        assert before == says(ANN)
        assert {} == backend._quotas._accounts

    def test_called_off(
        self, maildir: Make, held_pool: Any, failure_of: Any, success_of: Any, says: Any
    ) -> None:
        """
        So does one that is called off before it has begun.
        """
        backend = maildir(held_pool, quota="300")
        [result] = backend.deliver(HUNDRED, [ANN])
        result.cancel()
        held_pool.work()

        failure_of(result, CancelledError)
        assert says(ANN) is None
        assert {} == backend._quotas._accounts

    def test_links(
        self, maildir: Make, success_of: Any, says: Any, number: Any, way: str, root: Path
    ) -> None:
        """
        A message that many share by links counts for each in full.
        """
        backend = maildir(quota="1000")
        for _ in range(2):
            for result in backend.deliver(HUNDRED, [ANN, BOB, CY]):
                success_of(result)

        for mailbox in (ANN, BOB, CY):
            assert "1000S 100 1 100 1" == says(mailbox)
        [first, _] = (root / "example.org" / "ann" / "new").iterdir()
        assert 3 == first.stat().st_nlink

    def test_folders(self, maildir: Make, success_of: Any, failure_of: Any, root: Path) -> None:
        """
        Folders share the quota of the INBOX.
        """
        backend = maildir(quota="250", detail="folder")
        lists = Mailbox("ann", "example.org", "lists")
        success_of(backend.deliver(HUNDRED, [lists])[0])
        success_of(backend.deliver(HUNDRED, [ANN])[0])

        failure_of(backend.deliver(HUNDRED, [lists])[0], DeliveryError)
        inbox = root / "example.org" / "ann"
        assert (200, 2) == recount(str(inbox), Quota(250), 0o600, store=False)
        assert [inbox / "maildirsize"] == list(inbox.rglob("maildirsize"))

    def test_added_before_the_answer(
        self, maildir: Make, success_of: Any, says: Any, way: str
    ) -> None:
        """
        Whoever has been told of a delivery finds it in the sums.
        """
        backend = maildir(quota="1000")
        success_of(backend.deliver(HUNDRED, [ANN])[0])
        success_of(backend.verify(ANN))
        seen: list[str | None] = []
        [result] = backend.deliver(HUNDRED, [ANN])
        result.addCallback(lambda _: seen.append(says(ANN)))

        assert ["1000S 100 1 100 1"] == seen


class TestCost:
    """
    What is asked of the system, by those who have a quota and those who have none.
    """

    @pytest.fixture
    def all_calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """
        The name of every function of ``os`` and ``fcntl`` that is called, in haste or not.
        """
        seen: list[str] = []

        def record(owner: Any, name: str) -> None:
            original = getattr(owner, name)

            def call(*args: Any, **kwargs: Any) -> Any:
                seen.append("fstat" if name == "device" else name)
                return original(*args, **kwargs)

            monkeypatch.setattr(owner, name, call)

        for name in ("open", "write", "device", "close", "link", "rename"):
            record(HastyCalls, name)

        names = "open close read write fsync fstat stat lstat scandir listdir mkdir rename link"
        for name in f"{names} unlink chmod fchmod chown access utime".split():
            record(os, name)
        record(fcntl, "flock")
        return seen

    def test_without(self, maildir: Make, success_of: Any, all_calls: list[str]) -> None:
        """
        A delivery without a quota makes these calls, and no other.
        """
        backend = maildir()
        for _ in range(2):
            success_of(backend.deliver(HUNDRED, [ANN])[0])
        all_calls.clear()
        assert backend.verify(with_declared_size(ANN, 100)) is None
        success_of(backend.deliver(HUNDRED, [ANN])[0])

        into_tmp = ["open", "write", "fsync", "fstat", "close"]
        into_new = ["rename", "open", "fsync", "fstat", "close"]
        assert [*into_tmp, *into_new] == all_calls

    def test_with(self, maildir: Make, success_of: Any, all_calls: list[str]) -> None:
        """
        With one: the file is read, the directory locked, and a line added.
        """
        backend = maildir(quota="1G")
        for _ in range(2):
            success_of(backend.deliver(HUNDRED, [ANN])[0])
        all_calls.clear()
        success_of(backend.deliver(HUNDRED, [ANN])[0])

        asked = ["open", "read", "fstat", "close"]
        into_tmp = ["open", "write", "fsync", "fstat", "close"]
        locked = ["open", "flock"]
        into_new = ["rename", "open", "fsync", "fstat", "close"]
        added = ["open", "write", "close", "close"]
        assert [*asked, *into_tmp, *locked, *into_new, *added] == all_calls
