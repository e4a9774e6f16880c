"""
A reload: what is started, what is stopped and when, and what stays if something is wrong.
"""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable
from typing import Any, cast

import pytest
from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure

from lmtpsvc.limits import Limits
from lmtpsvc.server.plan import CannotReload, CurrentPlan, Plan
from lmtpsvc.server.tls import ServerTLS
from lmtpsvc.session.standard import standard_extensions


class Part(Service):
    def __init__(self, happened: list[str], name: str, error: Exception | None = None) -> None:
        self.happened, self.label, self.error = happened, name, error
        #: What stopping waits for.
        self.stopping: Deferred[None] | None = None

    def startService(self) -> None:
        if self.error is not None:
            raise self.error
        super().startService()
        self.happened.append(f"{self.label} started")

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self.happened.append(f"{self.label} stopped")
        return self.stopping


class House:
    """
    A server, and the plan that *again* makes next.
    """

    #: As many have room on any machine.
    connections = 10

    def __init__(self, server: Any) -> None:
        self.server = server
        self.happened: list[str] = []
        self.a, self.b, self.c = (Part(self.happened, name) for name in "abc")
        self.next: Plan | Exception = self.plan(self.b, self.c)
        self.current = CurrentPlan(server.factory, self.plan(self.a, self.b), self.again)

    def plan(self, *parts: Part, **more: Any) -> Plan:
        limits = Limits(message_size=1000 * len(parts), connections=self.connections)
        agent = evolve(self.server.factory.agent, limits=limits)
        return Plan(agent, standard_extensions(limits), [object(), *parts], {}, "there", **more)

    def again(self, old: Plan) -> Plan:
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def new(self) -> list[str]:
        """
        What has happened since the last time.
        """
        happened, self.happened[:] = list(self.happened), []
        return happened


@pytest.fixture
def house(make_server: Callable[..., Any]) -> House:
    house = House(make_server(Limits()))
    house.current.startService()
    assert ["a started", "b started"] == house.new()
    return house


def said(logged: list[LogEvent]) -> list[str]:
    return [
        formatEvent(event)
        for event in logged
        if event["log_namespace"].startswith("lmtpsvc.server")
    ]


class TestReload:
    def test_exchange(self, house: House, logged: list[LogEvent]) -> None:
        """
        What is new is started, what is not needed any more is stopped, what stays is left alone.
        """
        house.current.reload()

        assert ["c started", "a stopped"] == house.new()
        assert house.server.factory.agent is house.next.agent  # type: ignore[union-attr]
        assert ["reloaded: there"] == said(logged)

    def test_twice(self, house: House) -> None:
        """
        The next reload begins where this one ended.
        """
        house.current.reload()
        house.new()
        house.next = house.plan(house.a)

        house.current.reload()

        assert ["a started", "c stopped", "b stopped"] == house.new()

    def test_fixed(self, house: House, logged: list[LogEvent]) -> None:
        """
        What will not change before a restart is told.
        """
        house.next = house.plan(house.a, fixed=["listen", "workers"])

        house.current.reload()

        assert "changed, but not before a restart: listen, workers" == said(logged)[1]

    def test_trusted(self, house: House) -> None:
        """
        Who is trusted changes with the plan, for new connections.
        """
        before = house.server.connect()
        house.next = house.plan(house.a, trusts=lambda host: host == "192.0.2.7")

        house.current.reload()

        after = house.server.connect()
        assert not before.protocol._session.connection.is_trusted
        assert after.protocol._session.connection.is_trusted

    def test_open_files(
        self, house: House, logged: list[LogEvent], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        At the start and at each reload the system is asked for as many files as the connections need.
        """
        asked: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 8192))
        monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
        house.connections = 9000
        house.next = house.plan(house.a, house.b)

        house.current.reload()

        [worry] = said(logged)[1:]
        assert worry.startswith("max-connections: 9000 connections would need 9256 open files")
        assert [(8192, 8192)] == asked
        CurrentPlan(house.server.factory, house.next, house.again).startService()
        assert said(logged)[2:] == [worry]
        assert [(8192, 8192)] * 2 == asked

    def test_tls(self, house: House, logged: list[LogEvent]) -> None:
        """
        Handshakes are made with the new certificate, and what is wrong with it is told.
        """
        tls = cast("ServerTLS", object())
        house.next = house.plan(tls=tls, worries=["chain.pem: the certificate has expired"])

        house.current.reload()

        assert tls is house.server.factory.tls
        assert "chain.pem: the certificate has expired" in said(logged)

    def test_tls_of_a_broken_file(self, house: House) -> None:
        """
        What was there before stays.
        """
        house.server.factory.tls = tls = object()
        house.next = CannotReload("tls-key: no")

        house.current.reload()

        assert tls is house.server.factory.tls

    def test_broken(self, house: House, logged: list[LogEvent]) -> None:
        """
        A broken file leaves everything as it is, and is one line.
        """
        agent = house.server.factory.agent
        house.next = CannotReload("x.toml: line 1: wrong")

        house.current.reload()

        assert [] == house.new()
        assert house.server.factory.agent is agent
        assert ["x.toml: line 1: wrong (the old configuration stays in force)"] == said(logged)

    def test_defect(self, house: House, logged: list[LogEvent]) -> None:
        """
        So does a plugin that fails in a way of its own; that is a traceback in the log.
        """
        house.next = RuntimeError("a defect")

        house.current.reload()

        assert [] == house.new()
        (event,) = logged
        assert isinstance(event["log_failure"], Failure)

    def test_cannot_start(self, house: House, logged: list[LogEvent]) -> None:
        """
        If one part cannot be started, those before it are stopped again.
        """
        broken = Part(house.happened, "d", OSError(13, "Permission denied", "/srv"))
        house.next = house.plan(house.b, house.c, broken)

        house.current.reload()

        assert ["c started", "c stopped"] == house.new()
        assert ["/srv: Permission denied (the old configuration stays in force)"] == said(logged)
        house.next = house.plan(house.b, Part(house.happened, "e", ValueError()))
        house.current.reload()
        assert [
            "Part cannot be started",
            "Part: ValueError: (the old configuration stays in force)",
        ] == said(logged)[-2:]

    def test_not_running(self, house: House, logged: list[LogEvent]) -> None:
        """
        A service that stops does not reload.
        """
        house.current.stopService()
        house.new()

        house.current.reload()

        assert [] == house.new()
        assert [] == said(logged)

    def test_cannot_start_at_all(self, make_server: Callable[..., Any]) -> None:
        """
        At start, an error without a file names the part.
        """
        house = House(make_server(Limits()))
        house.a.error = OSError(5, "I/O error")

        with pytest.raises(OSError, match="I/O error: 'Part'"):
            house.current.startService()

    def test_cannot_start_in_words(self, make_server: Callable[..., Any]) -> None:
        """
        An error that has nothing but words keeps them.
        """
        house = House(make_server(Limits()))
        house.a.error = OSError("no such table")

        with pytest.raises(OSError, match="no such table") as caught:
            house.current.startService()

        assert ("no such table", "Part") == (caught.value.strerror, caught.value.filename)

    def test_defect_at_start(self, make_server: Callable[..., Any], logged: list[LogEvent]) -> None:
        """
        One that fails in another way, as databases do, is told in one line, too; its author finds the
        traceback in the log.
        """
        house = House(make_server(Limits()))
        house.a.error = sqlite3.OperationalError("unable to open\ndatabase file")

        with pytest.raises(
            OSError, match="OperationalError: unable to open database file"
        ) as caught:
            house.current.startService()

        assert "Part" == caught.value.filename
        assert house.a.error is logged[-1]["log_failure"].value

    def test_start_that_would_be_awaited(self, make_server: Callable[..., Any]) -> None:
        """
        ``async def startService`` would do nothing at all.
        """
        house = House(make_server(Limits()))

        async def start() -> None: ...

        house.a.startService = start  # type: ignore[assignment,method-assign]  # a mistake

        with pytest.raises(OSError, match="startService is async"):
            house.current.startService()

    def test_start_that_fails_later(
        self, make_server: Callable[..., Any], logged: list[LogEvent]
    ) -> None:
        """
        Nobody waits for it; that it has failed is in the log.
        """
        house = House(make_server(Limits()))
        started: Deferred[None] = Deferred()
        house.a.startService = lambda: started  # type: ignore[assignment,method-assign]  # as some do
        house.current.startService()

        started.errback(ValueError("no such table"))

        assert ["Part has not started"] == said(logged)


RCPT = b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n"


class TestTransactions:
    def test_keeps_what_it_began_with(self, house: House) -> None:
        """
        A transaction has its backend and directory to its end, and they are not stopped before.
        """
        wire = house.server.connect()
        idle = house.server.connect()
        wire.says(RCPT)
        house.current.reload()
        assert ["c started"] == house.new()

        wire.says(b"DATA\r\n", b"x\r\n.\r\n")
        idle.says(RCPT, b"RSET\r\n")
        assert [] == house.new()
        house.server.world.held["ann"].callback(None)

        assert ["a stopped"] == house.new()
        assert wire.heard()[-1].startswith(b"250 ")

    @pytest.mark.parametrize(
        "words",
        [b"RSET\r\n", b"LHLO x\r\n", b"QUIT\r\n", b"RSET\r\nNOOP\r\nMAIL FROM:<>\r\nRSET\r\n"],
    )
    def test_given_up(self, words: bytes, house: House) -> None:
        """
        One that the client gives up has ended.
        """
        wire = house.server.connect()
        wire.says(RCPT)
        house.current.reload()
        house.new()

        wire.says(words)

        assert ["a stopped"] == house.new()

    def test_hung_up(self, house: House) -> None:
        """
        So has that of a client that is gone.
        """
        wire = house.server.connect()
        wire.says(RCPT)
        house.current.reload()
        house.new()

        wire.hang_up()

        assert ["a stopped"] == house.new()

    def test_too_large(self, house: House) -> None:
        """
        And one whose text is refused.
        """
        house.server.factory.agent = evolve(house.server.factory.agent, limits=Limits())
        house.server.factory.extensions = standard_extensions(Limits())
        wire = house.server.connect()
        wire.says(RCPT, b"DATA\r\n")
        house.current.reload()
        house.new()

        wire.says(b"x" * 998 + b"\r\n.\r\n")
        assert [] == house.new()
        house.server.world.held["ann"].callback(None)
        assert ["a stopped"] == house.new()

    def test_next_transaction(self, house: House) -> None:
        """
        The next one on the same connection has the new configuration.
        """
        wire = house.server.connect()
        protocol = wire.protocol
        wire.says(RCPT)
        before = protocol._agent
        house.current.reload()
        wire.says(RCPT.partition(b"\n")[2])
        assert before is protocol._agent

        wire.says(b"RSET\r\n", RCPT)

        assert house.server.factory.agent is protocol._agent

    def test_new_connection(self, house: House) -> None:
        """
        A new connection has the new limits.
        """
        house.next = house.plan(house.a, house.b, house.c)
        house.current.reload()

        wire = house.server.accept()

        assert b"250-SIZE 3000" in wire.says(b"LHLO x\r\n")

    def test_two_reloads(self, house: House) -> None:
        """
        Each reload waits for those who began before it, and for nobody else.
        """
        first, second = house.server.connect(), house.server.connect()
        first.says(RCPT)
        house.current.reload()
        second.says(RCPT)
        house.next = house.plan(house.c)
        house.current.reload()
        assert ["c started"] == house.new()

        first.says(b"RSET\r\n")
        assert ["a stopped"] == house.new()
        second.says(b"RSET\r\n")

        assert ["b stopped"] == house.new()


class TestStop:
    def test_waits_for_those_that_leave(
        self, house: House, no_result: Callable[..., None], success_of: Callable[..., Any]
    ) -> None:
        """
        What was on its way out has gone, too, when the service has stopped.
        """
        house.a.stopping = Deferred()
        house.current.reload()
        assert ["c started", "a stopped"] == house.new()

        stopped = house.current.stopService()

        assert [] == house.new()
        no_result(stopped)
        house.a.stopping.callback(None)
        assert ["c stopped", "b stopped"] == house.new()
        success_of(stopped)

    def test_still_in_use(self, house: House, success_of: Callable[..., Any]) -> None:
        """
        A transaction that is cut off does not keep anything from being stopped, once.
        """
        wire = house.server.connect()
        wire.says(RCPT)
        house.current.reload()
        house.new()

        success_of(house.current.stopService())
        assert ["a stopped", "c stopped", "b stopped"] == house.new()
        wire.hang_up()

        assert [] == house.new()

    def test_cannot_be_stopped(
        self, house: House, logged: list[LogEvent], success_of: Callable[..., Any]
    ) -> None:
        """
        One that fails to stop is logged, and in nobody's way.
        """
        house.a.stopping = Deferred()
        house.current.reload()

        house.a.stopping.errback(RuntimeError("a defect"))

        assert "cannot be stopped" in formatEvent(logged[-1])
        success_of(house.current.stopService())

    def test_fails_at_the_end(
        self, house: House, logged: list[LogEvent], success_of: Callable[..., Any]
    ) -> None:
        """
        A part that fails when the service stops is logged, and those behind it are stopped all the same.
        """
        house.b.stopping = fail(RuntimeError("a defect"))

        success_of(house.current.stopService())

        assert ["b stopped", "a stopped"] == house.new()
        assert ["Part cannot be stopped"] == said(logged)

    def test_takes_long(
        self, house: House, logged: list[LogEvent], success_of: Callable[..., Any]
    ) -> None:
        """
        What the service waits for, when it stops, is said after ten seconds, and is waited for.
        """
        house.b.stopping = Deferred()
        stopped = house.current.stopService()

        house.server.clock.advance(10)

        assert ["Part has not stopped after 10 seconds; waiting for it"] == said(logged)
        house.b.stopping.callback(None)
        success_of(stopped)
        assert [] == house.server.clock.getDelayedCalls()
