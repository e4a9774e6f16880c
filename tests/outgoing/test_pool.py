"""
Connections to one destination: made, kept, used again, given up.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.interfaces import IDelayedCall, IReactorPluggableNameResolver
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from lmtpsvc.outgoing.delivery import Delivery
from lmtpsvc.outgoing.destination import destination
from lmtpsvc.outgoing.encryption import Encryption
from lmtpsvc.outgoing.pool import Pool, PoolLimits
from lmtpsvc.outgoing.timeouts import Timeouts
from lmtpsvc.replies import Reply
from lmtpsvc.session.outcomes import Outcome, Stage
from lmtpsvc.session.terms import TLS, Terms
from lmtpsvc.wire.heard_replies import HeardReply

if TYPE_CHECKING:
    from .conftest import Connection, Server

OK = b"250 2.0.0 OK\r\n"
#: Twisted's words for a UNIX socket that takes nobody for the moment.
CROWDED = ConnectError(string=Failure(ConnectionDone()))
Message = Callable[..., Delivery]
Logged = Callable[[], list[str]]


@implementer(IReactorPluggableNameResolver)
class Machine(MemoryReactorClock):
    """
    A reactor that knows addresses, and whose name servers do not answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver: Any = self

    def resolveHostName(
        self, receiver: Any, name: str, portNumber: int = 0, **_more: object
    ) -> None:
        """
        As endpoints ask.
        """
        if name[0].isdigit():
            receiver.addressResolved(IPv4Address("TCP", name, portNumber))
            receiver.resolutionComplete()

    def connectTCP(self, *words: Any, **more: Any) -> Any:
        # As the reactor has it for a name, which is looked up first.
        connector = super().connectTCP(*words, **more)
        connector.stopConnecting = lambda: None
        return connector


@pytest.fixture
def pool(server: Server, clock: Clock) -> Iterator[Pool]:
    """
    At most two connections, for three messages each, kept for ten seconds.
    """
    yield Pool(
        server,
        Terms("client.example"),
        clock,
        limits=PoolLimits(connections=2, messages=3, idle_seconds=10),
    )
    # No test leaves a call behind that keeps a process alive.
    for connection in server.connections:
        connection.lose()
    clock.advance(60)
    assert clock.getDelayedCalls() == []


def codes(delivery: Delivery) -> list[int]:
    """
    What the recipients that are settled got.
    """
    return [
        outcome_of(delivery, number).reply.code
        for number, each in enumerate(delivery.outcomes)
        if each.called
    ]


def outcome_of(delivery: Delivery, number: int = 0) -> Outcome:
    """
    What recipient *number* got.
    """
    outcome = delivery.outcomes[number].result
    assert isinstance(outcome, Outcome)
    return outcome


def soon(clock: Clock) -> list[IDelayedCall]:
    """
    What is to be done before the time for connecting is over.
    """
    return [each for each in clock.getDelayedCalls() if each.getTime() - clock.seconds() < 20]


def serve(connection: Connection, recipients: int = 1) -> None:
    """
    Take a message, and deliver it.
    """
    connection.take(recipients)
    connection.heard()
    connection.say(OK * recipients)


class TestOutcomes:
    def test_each_as_it_comes(self, server: Server, pool: Pool, message: Message) -> None:
        """
        Ann's Deferred fires before Bob's reply is there.
        """
        delivery = message("ann", "bob")
        pool.send(delivery)
        [connection] = server.connections
        connection.greet()
        connection.take(2)
        assert connection.heard() == b"Hi\r\n.\r\n"
        connection.say(OK)

        assert codes(delivery) == [250]
        connection.say(b"452 4.2.2 full\r\n")
        assert codes(delivery) == [250, 452]

    def test_lost_after_some(self, server: Server, pool: Pool, message: Message) -> None:
        """
        RFC 2033 §5: replies that have come stand, the others are temporary failures.
        """
        delivery = message("ann", "bob")
        pool.send(delivery)
        [connection] = server.connections
        connection.greet()
        connection.take(2)
        connection.say(OK)
        connection.lose(ConnectionLost())

        assert codes(delivery) == [250, 451]
        outcome = outcome_of(delivery, 1)
        assert outcome.stage is Stage.MESSAGE
        assert outcome.heard is None


def test_who_overhears(server: Server, message: Message, clock: Clock, logged: Logged) -> None:
    """
    Somebody who only listens does no harm, whatever happens to him.
    """

    def overhear(command: str, reply: HeardReply) -> None:
        raise BrokenPipeError("nobody reads")

    pool = Pool(server, Terms("foo.edu"), clock, overhear=overhear)
    delivery = message()
    pool.send(delivery)
    [connection] = server.connections
    connection.greet()
    connection.take()
    connection.say(OK)

    assert codes(delivery) == [250]
    assert set(logged()) == {"who overhears replies has failed"}


class TestConnecting:
    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (ConnectionRefusedError(), "Connection refused"),
            (TCPTimedOutError(), "Connection timed out"),
            (DNSLookupError("no"), "Host not found"),
            (OSError(2, "/secret/path"), "Cannot connect"),
        ],
    )
    def test_fails(
        self, server: Server, pool: Pool, message: Message, error: Exception, text: str
    ) -> None:
        """
        Who cannot be reached is a temporary failure; what the log needs is told apart.
        """
        server.error = error
        delivery = message("ann", "bob")
        pool.send(delivery)

        for number in range(2):
            outcome = outcome_of(delivery, number)
            assert outcome.reply == Reply(451, text, (4, 1))
            assert (outcome.stage, outcome.unheard) == (Stage.CONNECT, True)
            assert outcome.detail
        assert pool.connections == 0

    def test_takes_too_long(
        self, server: Server, pool: Pool, message: Message, clock: Clock, logged: Logged
    ) -> None:
        """
        Nobody waits for ever, and it is no defect of ours.
        """
        server.holding = True
        delivery = message()
        pool.send(delivery)
        clock.advance(Timeouts().connect)

        assert codes(delivery) == [451]
        assert outcome_of(delivery).reply.text == "Connection timed out"
        assert logged() == []

    @pytest.mark.parametrize(
        "words", ["tcp:192.0.2.1:24", "192.0.2.1:24", "unix:/run/foo", "tls:192.0.2.1:24"]
    )
    @pytest.mark.parametrize("give_up", ["called off", "ours", "the endpoint's"])
    def test_nobody_answers(
        self, message: Message, words: str, give_up: str, logged: Logged
    ) -> None:
        """
        Each kind of endpoint is given up without a word of a defect: what is called off while
        connecting, and what takes too long for us or for the endpoint.
        """
        reactor = Machine()
        timeouts = Timeouts(connect=31.0 if give_up == "the endpoint's" else 29.0)
        pool = Pool(
            destination(reactor, words).endpoint, Terms("foo.edu"), reactor, timeouts=timeouts
        )
        delivery = message()
        pool.send(delivery)
        assert codes(delivery) == []
        if give_up == "called off":
            delivery.cancel()
        elif give_up == "ours":
            reactor.advance(30)
        else:
            [connecting] = reactor.tcpClients or reactor.unixClients
            factory = next(each for each in connecting if isinstance(each, ClientFactory))
            factory.clientConnectionFailed(reactor.connectors[0], Failure(TimeoutError()))
            # A HostnameEndpoint looks whether there is another address.
            reactor.advance(1)

        assert codes(delivery) == [451]
        assert pool.connections == 0
        assert logged() == []

    @pytest.mark.parametrize("words", ["mx.example.org:24", "my_mx.example.org:24"])
    def test_no_name_server_answers(self, message: Message, words: str, logged: Logged) -> None:
        """
        Nobody has said that there is no such host.
        """
        reactor = Machine()
        timeouts = Timeouts(connect=2.0)
        pool = Pool(
            destination(reactor, words).endpoint, Terms("foo.edu"), reactor, timeouts=timeouts
        )
        delivery = message()
        pool.send(delivery)
        reactor.advance(2)

        outcome = outcome_of(delivery)
        assert outcome.reply.text == "Connection timed out"
        assert outcome.detail == "no connection within 2 seconds"
        assert pool.connections == 0
        assert logged() == []

    def test_many_at_once(
        self, server: Server, clock: Clock, message: Message, logged: Logged
    ) -> None:
        """
        However many wait, and however soon a connection fails: each has its outcome.
        """
        pool = Pool(server, Terms("foo.edu"), clock, limits=PoolLimits(connections=1))
        deliveries = [message() for _ in range(1000)]
        for each in deliveries:
            pool.send(each)
        server.error = OSError(errno.EMFILE, "Too many open files")
        [connection] = server.connections
        connection.lose()

        assert [codes(each) for each in deliveries] == [[451]] * 1000
        assert pool.connections == 0
        assert logged() == []

    def test_crowded(
        self, server: Server, pool: Pool, clock: Clock, message: Message, logged: Logged
    ) -> None:
        """
        Where too many wait for the server of a UNIX socket, it is asked again, ever more seldom,
        until it takes us.
        """
        server.error = CROWDED
        delivery = message()
        pool.send(delivery)
        for seconds in (0.05, 0.1, 0.2, 0.4, 0.8, 1, 1):
            assert [seconds] == [round(each.getTime() - clock.seconds(), 6) for each in soon(clock)]
            clock.advance(seconds)
        assert codes(delivery) == []
        server.error = None
        clock.advance(1)
        [connection] = server.connections
        connection.greet()
        serve(connection)

        assert codes(delivery) == [250]
        assert logged() == []

    @pytest.mark.parametrize("give_up", ["called off", "late"])
    def test_crowded_for_too_long(
        self,
        server: Server,
        pool: Pool,
        clock: Clock,
        message: Message,
        logged: Logged,
        give_up: str,
    ) -> None:
        """
        That takes no longer than any connection may.
        """
        server.error = CROWDED
        delivery = message()
        pool.send(delivery)
        if give_up == "late":
            clock.pump([1.0] * 30)
            assert outcome_of(delivery).reply.text == "Connection timed out"
        else:
            delivery.cancel()

        assert codes(delivery) == [451]
        assert clock.getDelayedCalls() == []
        assert pool.connections == 0
        assert logged() == []

    def test_refused_by_the_greeting(self, server: Server, pool: Pool, message: Message) -> None:
        """
        A server that does not want us says so once, and is left.
        """
        delivery = message()
        pool.send(delivery)
        [connection] = server.connections
        connection.say(b"554 5.3.2 not today\r\n")

        assert codes(delivery) == [451]
        assert connection.heard() == b"QUIT\r\n"
        assert connection.is_closing

    def test_called_off(self, server: Server, pool: Pool, message: Message) -> None:
        """
        What is called off while connecting is settled at once.
        """
        server.holding = True
        delivery = message()
        pool.send(delivery)
        delivery.cancel()

        assert codes(delivery) == [451]
        assert pool.connections == 0

    def test_called_off_before_the_greeting(
        self, server: Server, pool: Pool, message: Message
    ) -> None:
        """
        The connection that was made for it is closed.
        """
        delivery = message()
        pool.send(delivery)
        delivery.cancel()

        assert codes(delivery) == [451]
        [connection] = server.connections
        assert connection.is_closing


class TestReuse:
    def test_kept(self, server: Server, pool: Pool, message: Message) -> None:
        """
        The second message goes over the first one's connection.
        """
        for number in range(2):
            delivery = message()
            pool.send(delivery)
            [connection] = server.connections
            if number == 0:
                connection.greet()
            serve(connection)
            assert codes(delivery) == [250]

    def test_closed_when_idle(
        self, server: Server, pool: Pool, message: Message, clock: Clock
    ) -> None:
        """
        Nobody is kept waiting for nothing.
        """
        pool.send(message())
        [connection] = server.connections
        connection.greet()
        serve(connection)
        clock.advance(9)
        assert connection.heard() == b""
        clock.advance(1)
        assert connection.heard() == b"QUIT\r\n"
        connection.say(b"221 bye\r\n")

        assert connection.is_closing

    def test_not_for_ever(self, server: Server, pool: Pool, message: Message) -> None:
        """
        After so many messages a new one is made.
        """
        for number in range(4):
            pool.send(message())
            connection = server.connections[-1]
            if number in {0, 3}:
                connection.greet()
            serve(connection)

        assert len(server.connections) == 2
        assert server.connections[0].heard() == b"QUIT\r\n"

    @pytest.mark.parametrize("farewell", [b"", b"421 4.4.2 idle\r\n"])
    def test_closed_meanwhile(
        self, server: Server, pool: Pool, message: Message, farewell: bytes
    ) -> None:
        """
        Where the server has closed a connection that was kept, the message goes over a new one.
        """
        pool.send(message())
        [first] = server.connections
        first.greet()
        serve(first)
        delivery = message("bob")
        pool.send(delivery)
        assert b"bob" in first.heard()
        if farewell:
            first.say(farewell)
        first.lose()

        assert codes(delivery) == []
        _, second = server.connections
        second.greet()
        serve(second)
        assert codes(delivery) == [250]

    def test_only_once(self, server: Server, pool: Pool, message: Message) -> None:
        """
        What fails over a new connection has failed.
        """
        pool.send(message())
        [first] = server.connections
        first.greet()
        serve(first)
        delivery = message("bob")
        pool.send(delivery)
        first.lose()
        _, second = server.connections
        second.greet()
        second.lose()

        assert codes(delivery) == [451]
        assert len(server.connections) == 2

    def test_not_when_something_was_said(
        self, server: Server, pool: Pool, message: Message
    ) -> None:
        """
        Where MAIL has been answered, the server may have done anything: no second try of ours.
        """
        pool.send(message())
        [first] = server.connections
        first.greet()
        serve(first)
        delivery = message("bob")
        pool.send(delivery)
        first.say(OK)
        first.lose()

        assert codes(delivery) == [451]
        assert len(server.connections) == 1

    def test_too_much_said(self, server: Server, pool: Pool, message: Message) -> None:
        """
        A server that says too much is not talked to again over this connection.
        """
        pool.send(message())
        [first] = server.connections
        first.greet()
        first.take()
        first.say(OK + OK)
        assert first.is_closing
        pool.send(message())

        assert len(server.connections) == 2

    def test_too_much_said_before_the_text(
        self, server: Server, pool: Pool, message: Message
    ) -> None:
        """
        Before a text, too, be it the beginning of a reply: who has been accepted is not known then.
        """
        delivery = message("ann", "bob")
        pool.send(delivery)
        [connection] = server.connections
        connection.greet("CHUNKING")
        assert connection.heard().count(b"RCPT") == 2
        connection.say(OK + b"550 5.0.0 what?\r\n" + OK + b"5")

        assert codes(delivery) == [550, 451]
        assert b"BDAT" not in connection.heard()
        assert connection.is_closing

    def test_too_much_said_within_the_text(
        self, server: Server, pool: Pool, message: Message
    ) -> None:
        """
        A reply that has begun before the text is complete is none to it: what comes behind it would be
        each recipient's that of the one before.
        """
        delivery = message("ann", "bob", text=b"Hi\r\n" * 20_000)
        pool.send(delivery)
        [connection] = server.connections
        connection.greet()
        connection.take(2)
        connection.say(b"25")
        producer = connection.transport.producer
        assert producer is not None
        producer.resumeProducing()

        assert codes(delivery) == [451, 451]
        assert not connection.heard().endswith(b"\r\n.\r\n")
        assert connection.is_closing

    def test_refused_message(self, server: Server, pool: Pool, message: Message) -> None:
        """
        After a refusal and RSET the connection is as good as before.
        """
        delivery = message()
        pool.send(delivery)
        [connection] = server.connections
        connection.greet()
        connection.heard()
        connection.say(OK + b"550 5.1.1 no\r\n503 5.5.1 nobody\r\n")
        assert codes(delivery) == [550]
        assert connection.heard() == b"RSET\r\n"
        connection.say(OK)
        pool.send(message())

        assert connection.heard().startswith(b"MAIL")


class TestConcurrency:
    def test_limit(self, server: Server, pool: Pool, message: Message) -> None:
        """
        The third message waits for one of two connections.
        """
        deliveries = [message(name) for name in ("ann", "bob", "cat")]
        for delivery in deliveries:
            pool.send(delivery)
        first, second = server.connections
        first.greet()
        second.greet()
        serve(second)

        assert b"cat" in second.transport.value()
        serve(second)
        serve(first)
        assert [codes(delivery) for delivery in deliveries] == [[250]] * 3

    def test_one_dies(self, server: Server, pool: Pool, message: Message) -> None:
        """
        Whoever waits gets a connection of its own when another one is lost.
        """
        deliveries = [message(name) for name in ("ann", "bob", "cat")]
        for delivery in deliveries:
            pool.send(delivery)
        server.connections[0].lose()

        assert codes(deliveries[0]) == [451]
        third = server.connections[2]
        third.greet()
        serve(third)
        assert codes(deliveries[2]) == [250]

    def test_called_off_while_waiting(self, server: Server, pool: Pool, message: Message) -> None:
        """
        It is not sent.
        """
        deliveries = [message(name) for name in ("ann", "bob", "cat")]
        for delivery in deliveries:
            pool.send(delivery)
        deliveries[2].cancel()

        assert codes(deliveries[2]) == [451]
        server.connections[0].greet()
        serve(server.connections[0])
        assert server.connections[0].heard() == b""


class TestCallingOff:
    def test_before_the_end_of_the_text(self, server: Server, pool: Pool, message: Message) -> None:
        """
        The connection is cut, so that the server never sees the end.
        """
        delivery = message()
        pool.send(delivery)
        [connection] = server.connections
        connection.greet()
        delivery.cancel()

        assert codes(delivery) == [451]
        assert connection.transport.aborted

    def test_after_the_end_of_the_text(self, server: Server, pool: Pool, message: Message) -> None:
        """
        What the server has got cannot be called off: its answer counts.
        """
        delivery = message()
        pool.send(delivery)
        [connection] = server.connections
        connection.greet()
        connection.take()
        delivery.cancel()
        assert codes(delivery) == []
        connection.say(OK)

        assert codes(delivery) == [250]

    def test_giving_up(self, server: Server, pool: Pool, message: Message) -> None:
        """
        Who does not want to wait for the answer need not.
        """
        delivery = message()
        pool.send(delivery)
        [connection] = server.connections
        connection.greet()
        connection.take()
        delivery.give_up(Reply(451, "too late", (4, 7)))

        assert outcome_of(delivery).reply.text == "too late"
        assert connection.transport.aborted


class TestClosing:
    def test_idle(
        self, server: Server, pool: Pool, message: Message, no_result: Any, success_of: Any
    ) -> None:
        """
        Idle connections take leave, and closing is done when they are gone.
        """
        pool.send(message())
        [connection] = server.connections
        connection.greet()
        serve(connection)
        closed = pool.close()
        no_result(closed)
        assert connection.heard() == b"QUIT\r\n"
        connection.say(b"221 bye\r\n")
        connection.lose()

        success_of(closed)

    def test_busy(
        self, server: Server, pool: Pool, message: Message, no_result: Any, success_of: Any
    ) -> None:
        """
        What is on its way is brought to its end; what waits fails, and nothing new is taken.
        """
        deliveries = [message(name) for name in ("ann", "bob", "cat", "dan")]
        for delivery in deliveries[:3]:
            pool.send(delivery)
        closed = pool.close()
        pool.send(deliveries[3])
        assert codes(deliveries[2]) == codes(deliveries[3]) == [451]
        for connection in server.connections:
            connection.greet()
            serve(connection)
            no_result(closed)
            assert connection.heard() == b"QUIT\r\n"
            connection.lose()

        success_of(closed)
        assert codes(deliveries[0]) == codes(deliveries[1]) == [250]

    def test_nothing_open(self, pool: Pool, success_of: Any) -> None:
        """
        Closing what never was open is done at once.
        """
        success_of(pool.close())


class TestPatience:
    @pytest.mark.parametrize(
        ("says", "seconds", "stage"),
        [
            ([], 300, Stage.GREETING),
            ([b"220 foo.edu\r\n"], 300, Stage.HELLO),
            ([b"220 foo.edu\r\n", b"250-foo\r\n250 PIPELINING\r\n"], 300, Stage.MAIL),
            ([b"220 foo.edu\r\n", b"250-foo\r\n250 PIPELINING\r\n", OK], 300, Stage.RCPT),
            ([b"220 foo.edu\r\n", b"250-foo\r\n250 PIPELINING\r\n", OK * 2], 120, Stage.DATA),
            (
                [b"220 foo.edu\r\n", b"250-foo\r\n250 PIPELINING\r\n", OK * 2 + b"354 go\r\n"],
                600,
                Stage.MESSAGE,
            ),
        ],
    )
    def test_runs_out(
        self,
        server: Server,
        pool: Pool,
        message: Message,
        clock: Clock,
        says: list[bytes],
        seconds: float,
        stage: Stage,
    ) -> None:
        """
        RFC 5321 §4.5.3.2: each reply has its time, and octets that are no reply win none.
        """
        delivery = message()
        pool.send(delivery)
        [connection] = server.connections
        for octets in says:
            connection.say(octets)
        clock.advance(seconds - 1)
        connection.say(b"2")
        assert codes(delivery) == []
        clock.advance(1)

        assert codes(delivery) == [451]
        outcome = outcome_of(delivery, 0)
        assert outcome.stage is stage
        assert connection.is_closing

    def test_each_reply_has_its_own(
        self, server: Server, pool: Pool, message: Message, clock: Clock
    ) -> None:
        """
        Between one recipient's reply and the next there is as much time as before the first.
        """
        delivery = message("ann", "bob")
        pool.send(delivery)
        [connection] = server.connections
        connection.greet()
        connection.take(2)
        clock.advance(599)
        connection.say(OK)
        clock.advance(599)
        connection.say(OK)

        assert codes(delivery) == [250, 250]

    def test_of_a_kept_connection_is_not_tried_again(
        self, server: Server, pool: Pool, message: Message, clock: Clock
    ) -> None:
        """
        Who was silent for five minutes would be so again.
        """
        pool.send(message())
        [connection] = server.connections
        connection.greet()
        serve(connection)
        delivery = message()
        pool.send(delivery)
        clock.advance(300)

        assert codes(delivery) == [451]
        assert len(server.connections) == 1

    def test_for_a_farewell(
        self, server: Server, pool: Pool, message: Message, clock: Clock
    ) -> None:
        """
        A server that does not answer QUIT is left all the same.
        """
        pool.send(message())
        [connection] = server.connections
        connection.greet()
        serve(connection)
        clock.advance(10)
        assert connection.heard() == b"QUIT\r\n"
        clock.advance(5)

        assert connection.is_closing


ANN_SPEAKS, BOB_SPEAKS = {"LOGIN": "ann"}, {"LOGIN": "bob"}


def introduce(connection: Connection, login: str) -> None:
    """
    Hear XCLIENT, and LHLO again.
    """
    assert connection.heard() == f"XCLIENT LOGIN={login}\r\n".encode()
    connection.say(b"220 foo.edu\r\n")
    assert connection.heard().startswith(b"LHLO")
    connection.say(b"250-foo.edu\r\n250-XCLIENT LOGIN\r\n250 PIPELINING\r\n")


class TestSpeakingFor:
    def test_another_one(self, server: Server, pool: Pool, message: Message) -> None:
        """
        The next message may be another client's, over the same connection.
        """
        pool.send(message(xclient=ANN_SPEAKS))
        [connection] = server.connections
        connection.greet("XCLIENT LOGIN")
        introduce(connection, "ann")
        serve(connection)
        pool.send(message(xclient=ANN_SPEAKS))
        serve(connection)
        pool.send(message(xclient=BOB_SPEAKS))
        introduce(connection, "bob")
        serve(connection)

    def test_nobody(self, server: Server, pool: Pool, message: Message) -> None:
        """
        What is nobody's does not go over a connection that speaks for somebody.
        """
        pool.send(message(xclient=ANN_SPEAKS))
        [first] = server.connections
        first.greet("XCLIENT LOGIN")
        introduce(first, "ann")
        serve(first)
        pool.send(message())
        _, second = server.connections
        second.greet("XCLIENT LOGIN")
        serve(second)
        assert first.heard() == b""

    def test_nobody_where_all_are_somebodys(
        self, server: Server, pool: Pool, message: Message
    ) -> None:
        """
        Where all connections speak for somebody, one is closed for who speaks for nobody.
        """
        for number in range(2):
            pool.send(message(xclient=ANN_SPEAKS))
            server.connections[number].greet("XCLIENT LOGIN")
            introduce(server.connections[number], "ann")
        pool.send(waiting := message("bob"))
        first = server.connections[0]
        serve(first)
        assert first.heard() == b"QUIT\r\n"
        first.lose()
        third = server.connections[2]
        third.greet("XCLIENT LOGIN")
        serve(third)

        assert codes(waiting) == [250]

    def test_idle_ones_make_room(self, server: Server, pool: Pool, message: Message) -> None:
        """
        An idle connection that suits nobody is closed for one that does.
        """
        deliveries = [message(xclient=ANN_SPEAKS) for _ in range(2)]
        for delivery in deliveries:
            pool.send(delivery)
        for connection in server.connections:
            connection.greet("XCLIENT LOGIN")
            introduce(connection, "ann")
            serve(connection)
        pool.send(waiting := message("bob"))
        first, second = server.connections
        assert (first.heard(), second.heard()) == (b"QUIT\r\n", b"")
        first.lose()
        third = server.connections[2]
        third.greet("XCLIENT LOGIN")
        serve(third)

        assert codes(waiting) == [250]


class TestEncryption:
    """
    What becomes of STARTTLS; real handshakes are in tests/interop.
    """

    @staticmethod
    def start(server: Server, clock: Clock, policy: TLS, delivery: Delivery) -> Connection:
        terms = Terms("client.example", tls=policy)
        Pool(server, terms, clock, encryption=Encryption("foo.edu")).send(delivery)
        [connection] = server.connections
        connection.greet("STARTTLS", "SIZE 1")
        assert connection.heard() == b"STARTTLS\r\n"
        connection.say(b"220 go\r\n")
        return connection

    @pytest.mark.parametrize("policy", [TLS.MAY, TLS.ENCRYPT, TLS.MUST])
    def test_begun(self, server: Server, clock: Clock, message: Message, policy: TLS) -> None:
        """
        After 220 TLS begins, and LHLO is the first word in it.
        """
        delivery = message()
        connection = self.start(server, clock, policy, delivery)
        assert connection.transport.tls is not None
        assert connection.heard() == b"LHLO client.example\r\n"
        connection.say(b"250-foo.edu\r\n250 PIPELINING\r\n")
        serve(connection)

        assert codes(delivery) == [250]

    @pytest.mark.parametrize("policy", [TLS.ENCRYPT, TLS.MUST])
    def test_fails(self, server: Server, clock: Clock, message: Message, policy: TLS) -> None:
        """
        Without TLS nothing is sent, and the outcome says why.
        """
        delivery = message()
        connection = self.start(server, clock, policy, delivery)
        connection.lose(SSL.Error([("SSL routines", "", "certificate verify failed")]))

        outcome = outcome_of(delivery)
        assert outcome.stage is Stage.HANDSHAKE
        assert str(outcome.reply) == "451 4.7.5 TLS handshake failed: certificate verify failed"
        assert len(server.connections) == 1

    def test_hangs(self, server: Server, clock: Clock, message: Message) -> None:
        """
        A handshake that does not end has its time.
        """
        delivery = message()
        connection = self.start(server, clock, TLS.MUST, delivery)
        clock.advance(Timeouts().hello)

        assert outcome_of(delivery).stage is Stage.HANDSHAKE
        assert connection.transport.aborted

    def test_may_do_without(self, server: Server, clock: Clock, message: Message) -> None:
        """
        What is there only if it works is left away where it does not.
        """
        delivery = message()
        connection = self.start(server, clock, TLS.MAY, delivery)
        connection.lose(SSL.Error([("SSL routines", "", "no shared cipher")]))
        assert codes(delivery) == []
        _, second = server.connections
        second.greet("STARTTLS")
        serve(second)

        assert codes(delivery) == [250]

    @pytest.mark.parametrize(
        "how",
        [
            SSL.Error([("SSL routines", "", "certificate required")]),
            ConnectionLost(),
            ConnectionDone(),
        ],
    )
    def test_refused_behind_the_handshake(
        self, server: Server, clock: Clock, message: Message, how: Exception
    ) -> None:
        """
        With TLS 1.3, the handshake is over for us when the server looks at our certificate.
        """
        delivery = message()
        connection = self.start(server, clock, TLS.MAY, delivery)
        connection.protocol.handshakeCompleted()  # type: ignore[attr-defined]  # IHandshakeListener
        connection.lose(how)
        _, second = server.connections
        second.greet("STARTTLS")
        serve(second)

        assert codes(delivery) == [250]

    def test_may_not_do_without(self, server: Server, clock: Clock, message: Message) -> None:
        """
        A server that takes no mail in the clear has refused us, and not the mail: that waits.
        """
        delivery = message()
        connection = self.start(server, clock, TLS.MAY, delivery)
        connection.lose(SSL.Error([("SSL routines", "", "certificate required")]))
        _, second = server.connections
        second.greet("STARTTLS")
        second.heard()
        second.say(b"530 5.7.0 Must issue a STARTTLS command first\r\n" * 3)

        outcome = outcome_of(delivery)
        assert str(outcome.reply) == "451 4.7.5 TLS handshake failed: certificate required"
        assert str(outcome.heard) == "530 5.7.0 Must issue a STARTTLS command first"

    def test_lost_behind_the_first_word(
        self, server: Server, clock: Clock, message: Message
    ) -> None:
        """
        Once something has come through it, TLS works: nothing is sent without.
        """
        delivery = message()
        connection = self.start(server, clock, TLS.MAY, delivery)
        connection.protocol.handshakeCompleted()  # type: ignore[attr-defined]  # IHandshakeListener
        connection.say(b"250-foo.edu\r\n")
        connection.lose(ConnectionLost())

        assert outcome_of(delivery).stage is Stage.HELLO
        assert len(server.connections) == 1

    @pytest.mark.parametrize(
        ("how", "stage"),
        [
            (SSL.Error([("", "", "certificate required")]), Stage.HANDSHAKE),
            (ConnectionDone(), Stage.HELLO),
        ],
    )
    def test_must_be_behind_the_handshake(
        self, server: Server, clock: Clock, message: Message, how: Exception, stage: Stage
    ) -> None:
        """
        Where TLS must be, an alert is told as that of a handshake, and nothing is tried without.
        """
        delivery = message()
        connection = self.start(server, clock, TLS.ENCRYPT, delivery)
        connection.protocol.handshakeCompleted()  # type: ignore[attr-defined]  # IHandshakeListener
        connection.lose(how)

        assert outcome_of(delivery).stage is stage
        assert len(server.connections) == 1

    def test_without_a_name(self, server: Server, clock: Clock, message: Message) -> None:
        """
        Whoever wants the certificate verified says in whose name; a pool that does not know sends
        nothing.
        """
        delivery = message()
        Pool(server, Terms("client.example", tls=TLS.MUST), clock).send(delivery)
        [connection] = server.connections
        connection.greet("STARTTLS")
        connection.say(b"220 go\r\n")

        assert codes(delivery) == [451]
        assert connection.is_closing

    def test_from_the_first_octet_on(self, server: Server, clock: Clock, message: Message) -> None:
        """
        An endpoint that encrypts needs no STARTTLS, and its handshake is told of like that one's.
        """
        server.encrypted = True
        pool = Pool(server, Terms("client.example", tls=TLS.MUST), clock)
        pool.send(lost := message())
        server.connections[0].lose(SSL.Error([("", "", "certificate verify failed")]))
        assert outcome_of(lost).stage is Stage.HANDSHAKE
        pool.send(delivery := message())
        connection = server.connections[1]
        connection.protocol.handshakeCompleted()  # type: ignore[attr-defined]  # IHandshakeListener
        connection.greet("STARTTLS")
        serve(connection)

        assert codes(delivery) == [250]
