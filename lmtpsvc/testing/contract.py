"""
The contract of `lmtpsvc.interfaces.IBackend`, as tests to be inherited.

::

    from lmtpsvc.testing import BackendContract


    class TestTickets(BackendContract):
        def make(self, reactor, directory):
            return Tickets(reactor, f"{directory}/tickets.db")

        def stored(self, directory, mailbox):
            return texts_in(f"{directory}/tickets.db", mailbox)

The tests return Deferreds, so that the runner must wait for those: pytest with the plugin
pytest-twisted does, and so does trial, where ``twisted.trial.unittest.TestCase`` stands beside
`BackendContract`.  With any other runner they fail, rather than pass unrun.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Final
from unittest import SkipTest

from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from ..envelope import Mailbox
from ..errors import DeliveryError
from ..interfaces import Capabilities, IBackend
from .case import Case
from .message import MemoryMessage
from .watch import MOST_SECONDS, CallWatch, TurnWatch

#: How large the large message is.
LARGE: Final = 50 * 1000 * 1000

#: Messages that are delivered at the same time.
MANY: Final = 20


class BackendContract:
    """
    Inherit this, and define `make` and `stored`; `broken` too, if you can.
    """

    #: Three mailboxes that the backend takes, all different.
    mailboxes: ClassVar[Sequence[Mailbox]] = (
        Mailbox("ann", "example.org"),
        Mailbox("bob", "example.org"),
        Mailbox("cid", "example.com"),
    )

    #: How long anything may take until it is taken for lost, in seconds.
    patience: ClassVar[float] = 60.0

    #: How long after the end messages are looked for that must not come any more, in seconds.
    settling: ClassVar[float] = 0.5

    def make(self, reactor: Any, directory: Path) -> IBackend:
        """
        A new backend that keeps its mail in *directory*, an empty one.

        If it provides `twisted.application.service.IService`, it is started and stopped.
        """
        raise NotImplementedError

    def stored(
        self, directory: Path, mailbox: Mailbox
    ) -> Sequence[bytes] | Awaitable[Sequence[bytes]]:
        """
        The messages that are in *mailbox* now, with either line ending; by the way that its user
        would take, rather than by the backend's own.
        """
        raise NotImplementedError

    def expected(self, text: bytes) -> bytes:
        """
        What `stored` is to show for a message with *text*, if that is not the text itself.

        CRLF and LF count as the same in any case.
        """
        return text

    def broken(self, directory: Path, mailbox: Mailbox) -> AbstractContextManager[object]:
        """
        While this is entered, nothing can be stored in *mailbox*, and in the others it can.
        """
        raise SkipTest("not applicable: nobody has said how to break one mailbox (see broken)")

    # ── what it is ───────────────────────────────────────────────────────────────────────────────

    def test_provides_the_interface(self) -> Deferred[None]:
        """
        It has what `IBackend` says, and its capabilities are some.
        """

        async def test(case: Case) -> None:
            verifyObject(IBackend, case.backend)
            capabilities = case.backend.capabilities
            assert isinstance(capabilities, Capabilities)
            assert capabilities.line_ending in {"\r\n", "\n"}

        return self._with_backend(test)

    def test_takes_mail_for_the_mailboxes(self) -> Deferred[None]:
        """
        ``verify`` says yes, now or later, with None.
        """

        async def test(case: Case) -> None:
            for mailbox in self.mailboxes:
                verdict = case.verify(mailbox)
                if verdict is not None:
                    verdict = await case.within(verdict)
                assert verdict is None, f"verify said {verdict!r}; yes is None, and no an exception"

        return self._with_backend(test)

    # ── one result for each ──────────────────────────────────────────────────────────────────────

    def test_one_result_for_each(self) -> Deferred[None]:
        """
        There are as many results as mailboxes, and each is None once the message is there.  The
        headers, which all share, are left as they were.
        """

        async def test(case: Case) -> None:
            text = _text(1)
            message = case.message(text, self.mailboxes)
            headers = message.headers().items()
            results = case.results(message, self.mailboxes)
            seen = []
            for mailbox, result in zip(self.mailboxes, results, strict=True):
                _same(None, await case.outcome(result))
                seen.append(await case.stored(mailbox))
            _same([[case.form(text)]] * len(self.mailboxes), seen)
            _same(headers, message.headers().items())

        return self._with_backend(test)

    def test_nobody(self) -> Deferred[None]:
        """
        For no mailboxes there are no results.
        """

        async def test(case: Case) -> None:
            _same([], case.deliver(_text(1), []))

        return self._with_backend(test)

    def test_named_twice(self) -> Deferred[None]:
        """
        A mailbox that is named twice has two results, and one copy or two.
        """

        async def test(case: Case) -> None:
            ann = self.mailboxes[0]
            results = case.deliver(_text(1), [ann, ann])
            assert len(results) == 2
            assert results[0] is not results[1], "two results, not the same one twice"
            _same([None, None], [await case.outcome(result) for result in results])
            copies = len(await case.stored(ann))
            assert copies in {1, 2}, f"{copies} copies"

        return self._with_backend(test)

    def test_many_at_the_same_time(self) -> Deferred[None]:
        """
        Transactions that overlap do not mix: each message is in each mailbox, once.
        """

        async def test(case: Case) -> None:
            texts = [_text(number) for number in range(MANY)]
            results = [result for text in texts for result in case.deliver(text, self.mailboxes)]
            _same({None}, {await case.outcome(result) for result in results})
            for mailbox in self.mailboxes:
                _same(sorted(map(case.form, texts)), sorted(await case.stored(mailbox)))

        return self._with_backend(test)

    # ── any message ──────────────────────────────────────────────────────────────────────────────

    def test_no_octets(self) -> Deferred[None]:
        """
        A message may be empty.
        """
        return self._with_backend(lambda case: self._comes_through(case, b""))

    def test_any_octets(self) -> Deferred[None]:
        """
        A message may have any octets: NUL, 8-bit, bare CR and LF, no end of the last line.
        """
        text = bytes(range(256)) + b"\r\n\r\n.\r\nFrom x\r\n>From x\r\n\r\n\n.\r" + b"x" * 5000
        return self._with_backend(
            lambda case: self._comes_through(case, b"Subject: any octets\r\n\r\n" + text)
        )

    def test_binary(self) -> Deferred[None]:
        """
        CRLF and bare LF and CR beside each other come through, large or small; where the
        capabilities say that binary content is kept, each of them as it was.
        """

        async def test(case: Case) -> None:
            capabilities = case.backend.capabilities
            text = b"Subject: octets\r\n\r\n" + bytes(range(256)) * 4096 + b"\n\r\n\n.\n"
            directory = capabilities.spool_directory or str(case.spool)
            large = MemoryMessage(text).spooled(directory, capabilities.line_ending)
            assert large.path is not None
            ann, bob, _ = self.mailboxes
            try:
                for message, mailbox in ((MemoryMessage(text), ann), (large, bob)):
                    (result,) = case.results(message, [mailbox])
                    _same(None, await case.outcome(result))
                    if capabilities.binary:
                        same = await case.stored_octets(mailbox) == [text]
                    else:
                        same = await case.stored(mailbox) == [case.form(text)]
                    assert same, "what is stored is not what was sent"
            finally:
                os.unlink(large.path)

        return self._with_backend(test)

    def test_large_message(self) -> Deferred[None]:
        """
        A message of 50 MB, spooled in a file, comes through, and the file is left as it was.
        """

        async def test(case: Case) -> None:
            text = _text(1) + b"0123456789" * 7 + b"\r\n"
            text += (b"x" * 998 + b"\r\n") * ((LARGE - len(text)) // 1000)
            capabilities = case.backend.capabilities
            directory = capabilities.spool_directory or str(case.spool)
            message = MemoryMessage(text).spooled(directory, capabilities.line_ending)
            assert message.path is not None
            try:
                before = _digest(message.path)
                results = case.results(message, self.mailboxes[:2])
                _same([None, None], [await case.outcome(result) for result in results])
                assert before == _digest(message.path), "the spooled file was written to"
            finally:
                os.unlink(message.path)
            expected = case.form(text)
            for mailbox in self.mailboxes[:2]:
                # Compared by hand: nobody wants to read how 50 MB differ.
                (stored,) = await case.stored(mailbox)
                same = stored == expected
                assert same, f"{len(stored)} octets are stored, not those that were sent"

        return self._with_backend(test)

    async def _comes_through(self, case: Case, text: bytes) -> None:
        ann = self.mailboxes[0]
        (result,) = case.deliver(text, [ann])
        _same(None, await case.outcome(result))
        _same([case.form(text)], await case.stored(ann))

    # ── failures ─────────────────────────────────────────────────────────────────────────────────

    def test_one_fails_alone(self) -> Deferred[None]:
        """
        Where one mailbox is broken it fails with a reply, and the others are served; once it is
        whole again, mail comes.
        """

        async def test(case: Case) -> None:
            first, second, third = self.mailboxes
            text = _text(1)
            with self.broken(case.directory, second):
                outcomes = [await case.outcome(r) for r in case.deliver(text, self.mailboxes)]
                _same([None, None], [outcomes[0], outcomes[2]])
                assert isinstance(outcomes[1], DeliveryError), (
                    f"{outcomes[1]!r} is taken for a defect; raise TemporaryFailure or"
                    " PermanentFailure"
                )
            _same(None, await case.outcome(case.deliver(text, [second])[0]))
            for mailbox in (first, second, third):
                _same([case.form(text)], await case.stored(mailbox))

        return self._with_backend(test)

    # ── cancelling ───────────────────────────────────────────────────────────────────────────────

    def test_cancelled_at_once(self) -> Deferred[None]:
        """
        Whoever is cancelled before the commit tells the truth: CancelledError, and no message will
        come, or None, and it is there.
        """

        async def test(case: Case) -> None:
            texts = [_text(number) for number in range(MANY)]
            deliveries = [(text, case.deliver(text, self.mailboxes)) for text in texts]
            for _, results in deliveries:
                for result in results:
                    result.cancel()
            await self._tell_the_truth(case, deliveries)

        return self._with_backend(test)

    def test_cancelled_on_the_way(self) -> Deferred[None]:
        """
        The same for those that are cancelled at any moment until they are done.
        """

        async def test(case: Case) -> None:
            clock = case.clock
            begun = clock.seconds()
            for result in case.deliver(_text(0), self.mailboxes):
                _same(None, await case.outcome(result))
            takes = clock.seconds() - begun
            deliveries = []
            for number in range(1, 2 * MANY):
                text = _text(number)
                results = case.deliver(text, self.mailboxes)
                deliveries.append((text, results))
                await case.sleep(takes * number / MANY)
                for result in results:
                    result.cancel()
            await self._tell_the_truth(case, deliveries, besides=case.form(_text(0)))

        return self._with_backend(test)

    async def _tell_the_truth(
        self,
        case: Case,
        deliveries: Sequence[tuple[bytes, Sequence[Deferred[None]]]],
        besides: bytes | None = None,
    ) -> None:
        """
        Every result fires, and what has been said is what is there when nothing more can come.
        """
        said: dict[Mailbox, list[bytes]] = {mailbox: [] for mailbox in self.mailboxes}
        for text, results in deliveries:
            for mailbox, result in zip(self.mailboxes, results, strict=True):
                outcome = await case.outcome(result)
                if outcome is None:
                    said[mailbox].append(case.form(text))
                elif not isinstance(outcome, (CancelledError, DeliveryError)):
                    raise outcome
        await case.stop()
        # Somebody may have forgotten to wait for what comes now.
        await case.sleep(self.settling)
        for mailbox, texts in said.items():
            stored = list(await case.stored(mailbox))
            if besides is not None:
                stored.remove(besides)
            late = [text for text in stored if text not in texts]
            assert not late, f"{mailbox} has {len(late)} messages whose delivery was called off"
            assert sorted(texts) == sorted(stored), f"{mailbox} has not what was said to be there"

    # ── the reactor ──────────────────────────────────────────────────────────────────────────────

    def test_does_not_wait_in_the_reactor(self) -> Deferred[None]:
        """
        Nothing that waits for a disk, a network or a thread is called in the reactor thread.
        """

        async def test(case: Case) -> None:
            # The first may make what all need.
            for result in case.deliver(_text(0), self.mailboxes):
                _same(None, await case.outcome(result))
            verdicts = []
            with CallWatch() as verifying:
                for mailbox in self.mailboxes:
                    verdict = case.verify(mailbox)
                    if verdict is not None:
                        verdicts.append(verdict)
                outcomes = [await case.outcome(verdict) for verdict in verdicts]
            with CallWatch() as delivering:
                results = case.deliver(_text(1), self.mailboxes)
                outcomes += [await case.outcome(result) for result in results]
            _same({None}, set(outcomes))
            for watch in (verifying, delivering):
                assert not watch.waits, f"the reactor thread waits in {watch.waits[0]}"

        return self._with_backend(test)

    def test_does_not_hold_the_reactor(self) -> Deferred[None]:
        """
        No turn of the reactor computes for long, be the message as large as it may.
        """

        async def test(case: Case) -> None:
            message = MemoryMessage(_text(1) + (b"x" * 998 + b"\r\n") * (LARGE // 2000))
            watch = TurnWatch(case.clock)
            watch.start()
            results = case.results(message, self.mailboxes)
            outcomes = [await case.outcome(result) for result in results]
            watch.stop()
            _same({None}, set(outcomes))
            assert watch.longest < MOST_SECONDS, (
                f"the reactor thread computes for {watch.longest:.2f} s at a stretch"
            )

        return self._with_backend(test)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def test_stops_in_order(self) -> Deferred[None]:
        """
        A backend that is a service waits, when it is stopped, for what has been begun.
        """

        async def test(case: Case) -> None:
            if not IService.providedBy(case.backend):
                raise SkipTest("not applicable: the backend is no service")
            texts = [_text(number) for number in range(MANY)]
            deliveries = [(text, case.deliver(text, self.mailboxes)) for text in texts]
            await case.stop()
            for _, results in deliveries:
                assert all(result.called for result in results), "it has stopped too early"
            await self._tell_the_truth(case, deliveries)

        return self._with_backend(test)

    # ── behind the scenes ────────────────────────────────────────────────────────────────────────

    def _with_backend(self, test: Callable[[Case], Coroutine[Any, Any, None]]) -> Deferred[None]:
        """
        Run *test* on a new backend in a new directory.
        """
        # Whoever runs the tests has chosen it.
        from twisted.internet import reactor  # noqa: PLC0415

        # Trial's TestCase starts it later.
        if not reactor.running and not isinstance(self, TestCase):
            raise RuntimeError(
                "the reactor does not run: use pytest with pytest-twisted, or trial with a"
                " twisted.trial.unittest.TestCase beside BackendContract"
            )

        async def run() -> None:
            directory = Path(tempfile.mkdtemp(prefix="lmtpsvc-contract-"))
            try:
                place = directory / "mail"
                place.mkdir()
                spool = directory / "spool"
                spool.mkdir()
                backend = self.make(reactor, place)
                case = Case(self, backend, IReactorTime(reactor), place, spool)
                case.start()
                try:
                    await test(case)
                finally:
                    await case.stop()
            finally:
                shutil.rmtree(directory, ignore_errors=True)

        return Deferred.fromCoroutine(run())


def _text(number: int) -> bytes:
    return b"Message-ID: <%d@contract>\r\nSubject: message %d\r\n\r\nbody %d\r\n" % ((number,) * 3)


def _same(expected: object, found: object) -> None:
    """
    As an assertion of pytest, which does not look into assertions here.
    """
    if expected != found:
        raise AssertionError(f"expected {_short(expected)}, found {_short(found)}")


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 500 else f"{said[:300]} … {said[-150:]}"


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
