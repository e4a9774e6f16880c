"""
A connection, on a transport that is a string.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.testing import StringTransport
from zope.interface import alsoProvides

from lmtpsvc import replies
from lmtpsvc.commitment import Commitment
from lmtpsvc.errors import PermanentFailure
from lmtpsvc.limits import Limits
from lmtpsvc.replies import Reply
from lmtpsvc.server.factory import LMTPFactory

MAIL = b"MAIL FROM:<ann@example.net>\r\n"


def to(*names: str) -> bytes:
    return b"".join(f"RCPT TO:<{name}@example.org>\r\n".encode() for name in names)


def message(*names: str, text: bytes = b"Hi\r\n") -> bytes:
    return MAIL + to(*names) + b"DATA\r\n" + text + b".\r\n"


def line(reply: Reply) -> bytes:
    return reply.wire[:-2]


def codes(lines: list[bytes]) -> list[bytes]:
    return [each[:3] for each in lines]


OK, SENDER, RCPT, TEXT = map(
    line, (replies.OK, replies.SENDER_OK, replies.RECIPIENT_OK, replies.START_TEXT)
)
DOWN, IDLE, FULL = map(
    line, (replies.SHUTTING_DOWN, replies.IDLE_TOO_LONG, replies.TOO_MANY_CONNECTIONS)
)
BYE = b"221 2.0.0 mx.example.org closing connection"


class TestEarlyReplies:
    """
    Each recipient is answered as soon as order allows (RFC 2033 §4.2, §5).
    """

    @pytest.fixture
    def wire(self, server: Any) -> Any:
        wire = server.connect()
        assert [SENDER, RCPT, RCPT, RCPT, TEXT] == wire.says(message("ann", "bob", "eve"))
        return wire

    def test_first_does_not_wait_for_second(self, wire: Any, world: Any) -> None:
        """
        Ann's reply is on the wire at once; Eve's waits for Bob's, whose mailbox is busy.
        """
        world.held["ann"].callback(None)
        (said,) = wire.heard()
        assert said.startswith(b"250 2.0.0 <ann@example.org> ")

        world.held["eve"].callback(None)
        assert [] == wire.heard()

        world.held["bob"].errback(PermanentFailure("Moved away", (1, 6)))
        bob, eve = wire.heard()
        assert b"550 5.1.6 Moved away" == bob
        assert eve.startswith(b"250 2.0.0 <eve@example.org> ")

    def test_one_write(self, wire: Any, world: Any) -> None:
        """
        All replies that are ready leave together, and a reply that is not costs no write.
        """
        world.held["eve"].callback(None)
        world.held["bob"].callback(None)
        assert [] == wire.writes

        world.held["ann"].callback(None)

        assert 1 == len(wire.writes)
        assert [b"250", b"250", b"250"] == codes(wire.heard())

    def test_transaction_id(self, wire: Any, world: Any) -> None:
        """
        All recipients of a message are told the same transaction.
        """
        for held in world.held.values():
            held.callback(None)

        assert {world.messages[0].id.encode()} == {each.split()[3] for each in wire.heard()}


class TestConversation:
    """
    All the way through, from octets to a backend.
    """

    def test_everything_in_one_packet(self, server: Any, world: Any) -> None:
        """
        A client may say all it has to say at once, QUIT included: one write answers it.
        """
        wire = server.accept()
        wire.heard()

        wire.protocol.dataReceived(
            b"LHLO mx\r\n" + message("quick1", "no", "quick2") + message("quick3") + b"QUIT\r\n"
        )

        assert 1 == len(wire.writes)
        heard = wire.heard()
        hello = next(at for at, each in enumerate(heard) if each.startswith(b"250 "))
        assert [
            *[b"250", b"250", b"550", b"250", b"354", b"250", b"250"],
            *[b"250", b"250", b"354", b"250", b"221"],
        ] == codes(heard[hello + 1 :])
        assert wire.disconnecting
        assert [b"Hi\r\n"] * 2 == [text[-4:] for text in world.texts()]

    def test_octet_by_octet(self, server: Any, world: Any) -> None:
        """
        Packets of one octet are as good as any.
        """
        wire = server.connect()
        talk = message("quick1", "no", "late", "quick2", text=b"..\r\nHi\n.\n\r\n") + b"QUIT\r\n"
        for at in range(len(talk)):
            wire.protocol.dataReceived(talk[at : at + 1])
            if "late" in world.lookups and not world.lookups["late"].called:
                world.lookups["late"].callback(None)
            if "late" in world.held and not world.held["late"].called:
                world.held["late"].callback(None)

        assert [
            *[b"250", b"250", b"550", b"250", b"250", b"354"],
            *[b"250", b"250", b"250", b"221"],
        ] == codes(wire.heard())
        assert world.texts()[0].endswith(b".\r\nHi\n.\n\r\n")

    def test_next_message_waits(self, server: Any, world: Any) -> None:
        """
        A second message on the same connection begins when the first has all its replies.
        """
        wire = server.connect()
        wire.says(message("ann") + message("bob", text=b"Again\r\n"))
        assert ["ann"] == list(world.held)

        world.held["ann"].callback(None)
        assert [b"250", b"250", b"250", b"354"] == codes(wire.heard())
        assert ["ann", "bob"] == list(world.held)

        world.held["bob"].callback(None)
        assert [b"250"] == codes(wire.heard())
        assert [b"Hi\r\n", b"Again\r\n"] == [
            text[-len(end) :]
            for text, end in zip(world.texts(), (b"Hi\r\n", b"Again\r\n"), strict=True)
        ]

    def test_large(self, server: Any, world: Any) -> None:
        """
        A message that goes to a file is the same message.
        """
        wire = server.connect()
        text = b"x" * 70 + b"\r\n"

        wire.says(message("ann", text=text * 100))
        world.held["ann"].callback(None)

        assert world.texts()[0].endswith(text * 100)
        assert world.messages[0].path is not None
        assert [b"250"] == codes(wire.heard())

    def test_too_large(self, make_server: Callable[..., Any], world: Any) -> None:
        """
        Too large a message is 552 for each recipient, is delivered to nobody, and the connection
        stays of use.
        """
        wire = make_server(Limits(message_size=3000, spool_memory=1000)).connect()

        assert [SENDER, RCPT, RCPT, TEXT] == wire.says(message("ann", "bob", text=b"x\r\n" * 2000))[
            :4
        ]
        wire.says(message("ann", "bob", text=b"x\r\n" * 2000))
        heard = wire.says(b"NOOP\r\n")

        assert [OK] == heard
        assert [] == world.messages

    @pytest.mark.parametrize("asked", ["resolve", "verify", "deliver"])
    @pytest.mark.parametrize("packets", [1, 3])
    def test_no_exception_of_pythons(
        self, packets: int, asked: str, server: Any, world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A plugin that lets asyncio's CancelledError escape is a defect like any other: the client is
        told to come again, and may go on.
        """

        def cancelled(*_: object) -> None:
            raise asyncio.CancelledError

        monkeypatch.setattr(world, asked, cancelled)
        wire = server.connect()
        said = [MAIL, to("ann"), b"DATA\r\nHi\r\n.\r\n" if asked == "deliver" else b"RSET\r\n"]

        heard = wire.says(*said) if packets > 1 else wire.says(b"".join(said))

        assert [line(replies.INTERNAL_ERROR)] == [each for each in heard if each[:1] == b"4"]
        assert [OK] == wire.says(b"NOOP\r\n")

    def test_unknown(self, server: Any, world: Any, logged: Any) -> None:
        """
        A misspelt name is 550 5.1.1 at RCPT, and the log says who sent it there.
        """
        wire = server.connect()

        assert [SENDER, b"550 5.1.1 No such user"] == wire.says(MAIL + to("nobody"))

        (event,) = [event for event in logged if event.get("reply_code") == 550]
        assert ("ann@example.net", "nobody@example.org", "192.0.2.7") == (
            event["sender"],
            event["recipient"],
            event["client"],
        )

    def test_helo(self, server: Any) -> None:
        """
        Who says HELO is told what to say.
        """
        wire = server.connect()

        assert [b"500 5.5.1 This is LMTP (RFC 2033): say LHLO, not HELO or EHLO"] * 2 == wire.says(
            b"HELO me\r\n", b"EHLO me\r\n"
        )

    @pytest.mark.parametrize("pipelined", [80, 5000])
    def test_stack_does_not_grow(self, pipelined: int, server: Any, world: Any) -> None:
        """
        Answers that come at once do not nest, however many commands are in one packet.
        """
        wire = server.connect()
        depths: list[int] = []
        resolve = world.resolve

        def measured(mailbox: Any) -> Any:
            depths.append(len(inspect.stack(0)))
            return resolve(mailbox)

        world.resolve = measured if pipelined == 80 else resolve
        limit = sys.getrecursionlimit()
        assert limit < pipelined or pipelined == 80

        heard = wire.says(message(*["quick"] * pipelined))

        assert 1 + pipelined + 1 + pipelined == len(heard)
        assert 1 >= len(set(depths))

    def test_stack_does_not_grow_with_late_lookups(self, server: Any, world: Any) -> None:
        """
        Nor where answers come later, all behind the first.
        """
        wire = server.connect()
        names = [f"late{n}" for n in range(200)]
        wire.says(message(*names))

        for name in reversed(names):
            world.lookups[name].callback(None)

        assert [*[b"250"] * 200, b"354"] == codes(wire.heard())


class TestEnvelope:
    """
    What a backend is told of the client.
    """

    @pytest.mark.parametrize(
        ("peer", "host"),
        [
            (None, "192.0.2.7"),
            (IPv6Address("TCP", "2001:db8::1", 54321), "2001:db8::1"),
            (UNIXAddress(None), "local"),
        ],
    )
    def test_client(self, peer: Any, host: str, server: Any, world: Any) -> None:
        """
        Where it is, and what it calls itself.
        """
        wire = server.connect(peer) if peer is not None else server.connect()
        wire.says(message("quick", "no", "quick+x"))

        envelope = world.messages[0].envelope
        assert (host, "client.example.net", False) == (
            envelope.client.host,
            envelope.client.name,
            envelope.client.tls,
        )
        assert ("ann@example.net", ["quick@example.org", "quick+x@example.org"]) == (
            str(envelope.sender),
            list(map(str, envelope.recipients)),
        )

    def test_tls(self, server: Any, world: Any) -> None:
        """
        A connection with TLS is known as such, and its replies are not held back by Nagle.
        """
        protocol = server.factory.buildProtocol(None)
        wire = StringTransport()
        alsoProvides(wire, ISSLTransport, ITCPTransport)
        delays: list[object] = []
        wire.setTcpNoDelay = delays.append  # type: ignore[attr-defined]  # a string has no delays
        protocol.makeConnection(wire)
        protocol.dataReceived(b"LHLO mx\r\n" + message("quick"))

        assert world.messages[0].envelope.client.tls
        with world.messages[0].open() as file:
            assert b" with LMTPS id " in file.read()
        assert [True] == delays


class TestIdle:
    """
    A client that says nothing.
    """

    def test_ten_minutes(self, server: Any) -> None:
        """
        After ten minutes it hears 421, and the connection ends.
        """
        wire = server.connect()
        server.clock.advance(300)
        wire.says(b"NOOP\r\n")
        server.clock.pump([1] * 599)
        assert [] == wire.heard()

        server.clock.advance(1)

        assert [IDLE] == wire.heard()
        assert wire.disconnecting

    @pytest.mark.parametrize("said", [b"", MAIL, MAIL + to("quick") + b"DATA\r\nHal"])
    def test_anywhere(self, said: bytes, server: Any, world: Any) -> None:
        """
        Wherever it stopped, in the middle of a text too; nothing is delivered.
        """
        wire = server.connect()
        wire.says(said)

        server.clock.advance(600)

        assert [IDLE] == wire.heard()
        wire.hang_up()
        assert [] == world.messages

    def test_takes_no_notice(self, server: Any) -> None:
        """
        A client that takes neither 421 nor the end of the connection is cut off.
        """
        wire = server.connect()
        server.clock.advance(600)
        assert not wire.disconnected

        server.clock.advance(600)

        assert wire.disconnected

    def test_another_time(self, server: Any) -> None:
        """
        Who has connected before the operator says how long that is keeps the time of then.
        """
        before = server.connect()
        factory = server.factory
        limits = evolve(factory.agent.limits, idle_seconds=60)
        factory.use(evolve(factory.agent, limits=limits), factory.extensions)
        later = server.connect()

        server.clock.advance(60)
        assert [IDLE] == later.heard()
        server.clock.advance(539)
        assert [] == before.heard()
        server.clock.advance(1)
        assert [IDLE] == before.heard()

    def test_ends_with_the_connection(self, server: Any) -> None:
        """
        Nothing is left of a connection that has gone.
        """
        server.connect().hang_up()

        assert [] == server.clock.getDelayedCalls()

    def test_not_while_delivering(self, make_server: Callable[..., Any], world: Any) -> None:
        """
        A client that waits for us is not idle.
        """
        server = make_server(Limits(idle_seconds=10))
        wire = server.connect()
        wire.says(message("ann"))
        server.clock.pump([1] * 100)
        assert [] == wire.heard()

        world.held["ann"].callback(None)

        assert [b"250"] == codes(wire.heard())

    @pytest.mark.parametrize("behind", [b"", b"DATA\r\n", b"NOOP\r\n"])
    def test_not_while_looking_up(
        self, behind: bytes, make_server: Callable[..., Any], world: Any
    ) -> None:
        """
        Nor one that waits for the answer to a RCPT, whether or not it has said more.
        """
        server = make_server(Limits(idle_seconds=10, lookup_seconds=60))
        wire = server.connect()
        wire.says(MAIL + to("late") + behind)
        server.clock.pump([1] * 55)
        assert [] == wire.heard()

        world.lookups["late"].callback(None)

        assert RCPT == wire.heard()[0]
        assert not wire.disconnecting

    def test_counts_from_our_last_word(self, make_server: Callable[..., Any], world: Any) -> None:
        """
        After a long delivery the client has its whole time again.
        """
        server = make_server(Limits(idle_seconds=10))
        wire = server.connect()
        wire.says(message("ann"))
        server.clock.pump([1] * 19)
        world.held["ann"].callback(None)
        assert [b"250"] == codes(wire.heard())

        server.clock.pump([1] * 9)
        assert [] == wire.heard()
        server.clock.advance(1)

        assert [IDLE] == wire.heard()

    def test_slow_disk(self, server: Any) -> None:
        """
        One that is paused because our disk is slow is not idle either.
        """
        server.slow_disk = True
        wire = server.connect()
        wire.says(MAIL + to("ann") + b"DATA\r\n", *[b"x" * 900] * 4)

        server.clock.advance(600)

        assert [] == [each for each in wire.heard() if each == IDLE]
        server.work()
        wire.hang_up()
        server.work()


class TestLost:
    """
    A connection that goes before the end.
    """

    def test_while_delivering(self, server: Any, world: Any) -> None:
        """
        What has not begun to commit is called off, what has begun goes on: the client will send
        again what it has no answer for.
        """
        world.result = Commitment
        wire = server.connect()
        wire.says(message("ann", "bob"))
        assert world.held["ann"].begin()

        wire.hang_up()

        assert not world.held["bob"].begin()
        assert not world.held["ann"].called
        world.held["ann"].callback(None)
        assert [] == server.clock.getDelayedCalls()

    def test_while_looking_up(self, server: Any, world: Any) -> None:
        """
        An answer that comes too late is for nobody.
        """
        wire = server.connect()
        wire.says(MAIL + to("late1", "late2"))
        wire.heard()

        wire.hang_up()
        world.lookups["late1"].callback(None)
        world.lookups["late2"].errback(PermanentFailure("no"))

        assert [] == wire.heard()
        assert [] == server.clock.getDelayedCalls()

    @pytest.mark.parametrize("said", [b"Half", b"x" * 3000])
    def test_in_the_text(self, said: bytes, server: Any, world: Any) -> None:
        """
        Half a message is delivered to nobody.
        """
        wire = server.connect()
        wire.says(MAIL + to("quick") + b"DATA\r\n" + said)

        wire.hang_up()

        assert [] == world.messages

    def test_while_spooling(self, server: Any, world: Any) -> None:
        """
        Nor is a whole one, if the client has gone before it was spooled.
        """
        server.slow_disk = True
        wire = server.connect()
        wire.says(message("quick", text=b"x" * 3000 + b"\r\n"))

        wire.hang_up()
        while server.jobs:
            server.work()

        assert [] == world.messages


class TestFlow:
    """
    Input that is not read for now, and output that is not taken.
    """

    def test_producer(self, server: Any) -> None:
        """
        The connection is its own producer: it knows when its client does not read.
        """
        wire = server.connect()
        assert (wire.protocol, True) == (wire.producer, wire.streaming)

        wire.protocol.pauseProducing()
        assert not wire.is_read
        wire.protocol.resumeProducing()
        assert wire.is_read
        wire.protocol.stopProducing()

        wire.says(b"QUIT\r\n")
        assert wire.producer is None

    def test_silent_client_is_not_paused(self, server: Any, world: Any) -> None:
        """
        A client that waits for its replies costs no system call.
        """
        wire = server.connect()
        wire.says(message("ann"))
        assert wire.is_read

        world.held["ann"].callback(None)
        assert wire.is_read

    def test_impatient_client_is(self, server: Any, world: Any) -> None:
        """
        One that goes on talking while its message is delivered is not read; later it is, and
        answered.
        """
        wire = server.connect()
        wire.says(message("ann"))
        wire.says(b"NOOP\r\nRS")
        assert not wire.is_read

        world.held["ann"].callback(None)
        assert wire.is_read
        assert [b"250", OK[:3]] == codes(wire.heard())
        assert [OK] == wire.says(b"ET\r\n")

    def test_data_behind_slow_lookups(self, server: Any, world: Any) -> None:
        """
        So is one that sends the text before anybody knows whether there is somebody to have it.
        """
        wire = server.connect()
        wire.says(message("late", "no"))
        assert not wire.is_read

        world.lookups["late"].callback(None)

        assert wire.is_read
        assert [RCPT, b"550 5.1.1 No such user", TEXT] == wire.heard()
        assert ["late"] == list(world.held)

    def test_slow_disk(self, server: Any, world: Any) -> None:
        """
        A client that is faster than the disk is paused, and only then.
        """
        server.slow_disk = True
        wire = server.connect()
        wire.says(MAIL + to("ann") + b"DATA\r\n")
        wire.says(b"x" * 1100)
        assert wire.is_read
        wire.says(b"x" * 1100)
        assert not wire.is_read

        server.work()
        assert wire.is_read
        wire.says(b"\r\n.\r\n")
        while server.jobs:
            server.work()
        world.held["ann"].callback(None)
        assert [b"250"] == codes(wire.heard())

    def test_two_reasons(self, server: Any) -> None:
        """
        While one reason is left, input stays unread.
        """
        server.slow_disk = True
        wire = server.connect()
        wire.says(MAIL + to("ann") + b"DATA\r\n", b"x" * 1100, b"x" * 1100)
        wire.protocol.pauseProducing()

        server.work()
        assert not wire.is_read
        wire.protocol.resumeProducing()
        assert wire.is_read
        wire.hang_up()
        server.work()

    def test_broken_disk(self, server: Any, world: Any, tmp_path: Any) -> None:
        """
        A disk that does not take the text costs these recipients a 451, and the connection lives.
        """
        (tmp_path / "spool").write_text("in the way")
        wire = server.connect()

        wire.says(MAIL + to("ann", "bob") + b"DATA\r\n", b"x" * 1100, b"y" * 1100)
        heard = wire.says(b"\r\n.\r\nNOOP\r\n")

        assert [b"451", b"451", b"250"] == codes(heard)[-3:]
        assert [] == world.messages

    def test_thousands_in_one_packet(self, server: Any, world: Any) -> None:
        """
        A client that pipelines more commands than are read ahead is answered without saying more.
        """
        wire = server.connect()

        heard = wire.says(message(*["quick"] * 2500))

        assert [b"250"] * 2500 == codes(heard)[-2500:]
        assert wire.is_read


class TestFactory:
    """
    All connections together.
    """

    def test_too_many_connections(self, make_server: Callable[..., Any]) -> None:
        """
        The connection beyond the limit hears 421; it may come again when another has gone.
        """
        server = make_server(Limits(connections=2))
        first, _ = server.connect(), server.connect()

        third = server.accept()
        assert [FULL] == third.heard()
        assert third.disconnecting
        assert [] == third.says(b"LHLO mx\r\n")
        third.hang_up()

        first.hang_up()
        server.connect()

    def test_stop_when_nobody_is_there(self, server: Any, success_of: Callable[..., Any]) -> None:
        """
        A service without connections stops at once.
        """
        assert success_of(server.factory.stop()) is None

        wire = server.connect()
        wire.hang_up()
        assert success_of(server.factory.stop()) is None

    def test_stop(
        self,
        server: Any,
        world: Any,
        no_result: Callable[..., None],
        success_of: Callable[..., Any],
    ) -> None:
        """
        The idle hear 421 at once; a message in flight is delivered first, and one whose text is
        coming may come.
        """
        idle, delivering, sending = (server.connect() for _ in range(3))
        delivering.says(message("ann") + MAIL)
        sending.says(MAIL + to("bob") + b"DATA\r\nHalf")
        delivering.heard(), sending.heard()

        stopped = server.factory.stop()
        assert [DOWN] == idle.heard()
        assert idle.disconnecting
        idle.hang_up()
        assert [] == delivering.heard() == sending.heard()
        no_result(stopped)

        world.held["ann"].callback(None)
        first, last = delivering.heard()
        assert (b"250", DOWN) == (first[:3], last)
        assert delivering.disconnecting
        delivering.hang_up()

        sending.says(b" done\r\n.\r\n")
        world.held["bob"].callback(None)
        assert [b"250", b"421"] == codes(sending.heard())
        no_result(stopped)
        sending.hang_up()

        success_of(stopped)
        assert [] == server.clock.getDelayedCalls()

    def test_stop_takes_too_long(
        self,
        server: Any,
        world: Any,
        no_result: Callable[..., None],
        success_of: Callable[..., Any],
    ) -> None:
        """
        After the bound, who is still there is cut off, and nothing more is delivered.
        """
        world.result = Commitment
        wire = server.connect()
        wire.says(message("ann"))
        wire.heard()

        stopped = server.factory.stop()
        server.clock.advance(29)
        no_result(stopped)
        server.clock.advance(1)

        assert wire.disconnected
        assert [] == wire.heard()
        success_of(stopped)
        wire.hang_up()
        assert not world.held["ann"].begin()

    def test_late_comer(self, server: Any, world: Any) -> None:
        """
        A connection that slips in while the service stops hears 421.
        """
        busy = server.connect()
        busy.says(message("ann"))
        server.factory.stop()

        late = server.accept()

        assert [DOWN] == late.heard()
        late.hang_up()
        world.held["ann"].callback(None)
        busy.hang_up()

    def test_protocols_are_made_quietly(self) -> None:
        """
        The log is about mail: Twisted's own lines about factories are left out.
        """
        assert not LMTPFactory.noisy
