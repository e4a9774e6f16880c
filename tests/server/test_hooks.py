"""
What a connection does for extensions: it finds things out, and begins TLS.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.ssl import CertificateOptions
from twisted.logger import LogEvent

from lmtpsvc import replies
from lmtpsvc.errors import refusal
from lmtpsvc.limits import Limits
from lmtpsvc.per_recipient import to_the_end
from lmtpsvc.replies import Reply
from lmtpsvc.server.protocol import LMTPProtocol
from lmtpsvc.session.connection import Terms
from lmtpsvc.session.extensions import Extension, Extensions
from lmtpsvc.session.server import ServerSession

NO = Reply(550, "No", (7, 1))


class Curious(Extension):
    """
    ``XASK`` asks for what *answers* has next, ``XTLS`` begins TLS, ``XWHO`` tells the connection.
    """

    keyword = "XCURIOUS"

    def __init__(self) -> None:
        self.verbs = {b"XASK": self.ask, b"XTLS": self.tls, b"XWHO": self.who}
        self.answers: list[Any] = []
        self.agents: list[object] = []

    def ask(self, session: ServerSession, _argument: bytes) -> None:
        def find(agent: object) -> Any:
            self.agents.append(agent)
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        session.ask(find, lambda found: session.reply(Reply(250, f"Found {found}")))

    def tls(self, session: ServerSession, _argument: bytes) -> None:
        session.begin_tls(Reply(220, "Go ahead"))

    def who(self, session: ServerSession, _argument: bytes) -> None:
        it = session.connection
        said = [it.host, it.port, it.tls, it.offers_tls, it.is_trusted, it.terms.proxied]
        session.reply(Reply(250, " ".join(map(str, said))))


@pytest.fixture
def curious() -> Curious:
    return Curious()


@pytest.fixture
def server(make_server: Any, curious: Curious) -> Any:
    server = make_server(Limits(lookup_seconds=60))
    server.factory.extensions = Extensions([curious])
    return server


class TestFinding:
    def test_at_once(self, server: Any, curious: Curious) -> None:
        """
        It is asked with the delivery agent of the moment.
        """
        curious.answers = ["it"]
        wire = server.connect()

        assert [b"250 Found it"] == wire.says(b"XASK\r\n")
        assert [server.factory.agent] == curious.agents

    def test_later(self, server: Any, curious: Curious) -> None:
        """
        What comes behind it waits.
        """
        answer: Deferred[str] = Deferred()
        curious.answers = [answer]
        wire = server.connect()
        assert [] == wire.says(b"XASK\r\nNOOP\r\n")
        assert not wire.is_read

        answer.callback("it")

        assert [b"250 Found it", replies.OK.wire[:-2]] == wire.heard()
        assert wire.is_read

    def test_coroutine(self, server: Any, curious: Curious) -> None:
        """
        An extension may ask with a coroutine as well.
        """

        async def find() -> str:
            return "it"

        curious.answers = [find()]

        assert [b"250 Found it"] == server.connect().says(b"XASK\r\n")

    @pytest.mark.parametrize("failure", [refusal(NO), Deferred()], ids=["raised", "by a Deferred"])
    def test_failure(self, failure: Any, server: Any, curious: Curious) -> None:
        """
        Has the reply that a directory's would have.
        """
        curious.answers = [failure]
        wire = server.connect()
        said = wire.says(b"XASK\r\n")
        if isinstance(failure, Deferred):
            assert [] == said
            failure.errback(refusal(NO))
            said = wire.heard()

        assert [NO.wire[:-2]] == said

    def test_never(self, server: Any, curious: Curious) -> None:
        """
        Who waits is told so, when a look-up would have taken too long.
        """
        curious.answers = [Deferred()]
        wire = server.connect()
        wire.says(b"XASK\r\n")

        server.clock.advance(60)

        assert [replies.CANNOT_LOOK_UP.wire[:-2]] == wire.heard()

    def test_never_although_called_off(self, server: Any, curious: Curious) -> None:
        """
        The same if the answer goes on to be looked for.
        """
        curious.answers = [to_the_end(Deferred())]
        wire = server.connect()
        wire.says(b"XASK\r\n")

        server.clock.advance(60)

        assert [replies.CANNOT_LOOK_UP.wire[:-2]] == wire.heard()
        assert [b"250 2.0.0 OK"] == wire.says(b"NOOP\r\n")

    def test_the_client_has_gone(self, server: Any, curious: Curious) -> None:
        """
        What an extension asks is called off when its client has gone.
        """
        cancelled: list[object] = []
        curious.answers = [Deferred(cancelled.append)]
        wire = server.connect()
        wire.says(b"XASK\r\n")

        wire.hang_up()

        assert 1 == len(cancelled)


class TestTLS:
    def test_begins(self, server: Any) -> None:
        """
        The reply leaves in the clear, and what the connection is known for has changed.
        """
        context = CertificateOptions()
        server.factory.tls = context
        wire = server.connect()
        begun: list[tuple[object, bytes]] = []
        wire.startTLS = lambda context: begun.append((context, wire.value()))
        assert [b"250 192.0.2.7 54321 False True False False"] == wire.says(b"XWHO\r\n")

        wire.clear()
        wire.says(b"XTLS\r\n")

        assert [(context, b"220 Go ahead\r\n")] == begun
        # Until the handshake is done: see LMTPProtocol.handshakeCompleted.
        assert wire.producer is None
        wire.clear()
        assert [b"250 192.0.2.7 54321 True False False False"] == wire.says(b"XWHO\r\n")


class TestFacts:
    def test_trusted(self, server: Any) -> None:
        """
        A client that the factory trusts is known to extensions as trusted.
        """
        server.factory.trusts = {"192.0.2.7"}.__contains__

        assert server.connect().says(b"XWHO\r\n")[0].endswith(b"False True False")

    def test_terms(self, server: Any) -> None:
        """
        Each listener has its own; the connections are all of the one service.
        """
        protocol = server.factory.on(Terms(proxied=True)).buildProtocol(None)

        assert isinstance(protocol, LMTPProtocol)
        assert protocol.factory is server.factory


class Broken(Extension):
    """
    Fails in a way that it should not, at one *point* or another.
    """

    keyword = "XBROKEN"

    def __init__(self, point: str, error: BaseException) -> None:
        self._point, self._error = point, error
        self.verbs = {b"XBROKEN": self.verb}
        self.mail_parameters = {"XBROKEN": self.parameter}

    def fail_at(self, point: str) -> None:
        if self._point == point:
            raise self._error

    def announcement(self, session: ServerSession) -> str:
        self.fail_at("announcement")
        return "XBROKEN"

    def parameter(self, value: str | None) -> str | None:
        self.fail_at("parameter")
        return value

    def check_recipient(self, session: ServerSession, sender: Any, recipient: Any) -> None:
        self.fail_at("recipient")

    def verb(self, session: ServerSession, argument: bytes) -> None:
        self.fail_at("verb")
        if argument == b"line":
            session.read_line(lambda _: self.fail_at("line"), 100)
        elif argument == b"ask":
            session.ask(lambda _: None, lambda _: self.fail_at("then"))
        elif argument == b"nothing":
            session.reply(None)  # type: ignore[arg-type]  # a mistake
        else:
            session.reply(Reply(250, "Fine"))
            self.fail_at("behind the reply")


INTERNAL = replies.INTERNAL_ERROR.wire[:-2]


class TestDefects:
    """
    What an extension should not have raised costs one command, not the connection.
    """

    @pytest.mark.parametrize(
        ("point", "said", "heard"),
        [
            ("announcement", b"LHLO there\r\n", [INTERNAL]),
            ("parameter", b"MAIL FROM:<> XBROKEN=1\r\n", [INTERNAL]),
            (
                "recipient",
                b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n",
                [replies.SENDER_OK.wire[:-2], INTERNAL],
            ),
            ("verb", b"XBROKEN\r\n", [INTERNAL]),
            ("line", b"XBROKEN line\r\nodd\r\n", [INTERNAL]),
            ("then", b"XBROKEN ask\r\n", [INTERNAL]),
            ("behind the reply", b"XBROKEN\r\n", [b"250 Fine"]),
        ],
    )
    @pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()], ids=repr)
    def test_one_command(
        self,
        error: BaseException,
        point: str,
        said: bytes,
        heard: list[bytes],
        make_server: Any,
        logged: list[LogEvent],
    ) -> None:
        """
        It is answered 451, if it was not answered already, and the log has the traceback.
        """
        server = make_server(Limits())
        server.factory.extensions = Extensions([Broken(point, error)])
        wire = server.accept()
        wire.heard()
        if point != "announcement":
            wire.says(b"LHLO client.example.net\r\n")

        assert [*heard, replies.OK.wire[:-2]] == wire.says(said, b"NOOP\r\n")
        assert [error] == [each["log_failure"].value for each in logged if "log_failure" in each]

    def test_no_reply(self, make_server: Any, world: Any) -> None:
        """
        What is answered with something else is found out at once, even where that would have had to wait
        for its turn.
        """
        server = make_server(Limits())
        server.factory.extensions = Extensions([Broken("", ZeroDivisionError())])
        wire = server.connect()
        wire.says(b"MAIL FROM:<>\r\n")
        assert [] == wire.says(b"RCPT TO:<late@example.org>\r\nXBROKEN nothing\r\nNOOP\r\n")

        world.lookups["late"].callback(None)

        said = [
            each.wire[:-2] for each in (replies.RECIPIENT_OK, replies.INTERNAL_ERROR, replies.OK)
        ]
        assert said == wire.heard()

    def test_text_may_be_behind_it(self, make_server: Any) -> None:
        """
        Nobody knows how much of what follows is text: none of it is taken for commands.
        """

        class Taking(Broken):
            def __init__(self) -> None:
                super().__init__("verb", ZeroDivisionError())
                self.verbs = {b"BDAT": self.verb}

        server = make_server(Limits())
        server.factory.extensions = Extensions([Taking()])
        wire = server.connect()

        assert [INTERNAL] == wire.says(b"BDAT 6 LAST\r\nNOOP\r\n")
        assert wire.disconnecting
