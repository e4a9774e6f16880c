"""
What starts and stops, and in which order.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface import implementer

from lmtpsvc.limits import Limits
from lmtpsvc.server.listening import CannotStart, Listener
from lmtpsvc.server.service import LMTPService

#: What is said behind the reason.
CANNOT_LISTEN = (
    ": cannot listen on words of b; stop who listens there, or choose another with --listen"
)


@implementer(IListeningPort)
class Port:
    def __init__(self, happened: list[str], name: str, number: int) -> None:
        self.happened, self.name, self.number = happened, name, number

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self.number)

    def startListening(self) -> None: ...

    def stopListening(self) -> Deferred[None]:
        self.happened.append(f"{self.name} closed")
        return succeed(None)


@implementer(IStreamServerEndpoint)
@define
class Endpoint:
    """
    Listens, fails, or takes its time.
    """

    happened: list[str]
    name: str
    number: int = 8024
    error: Exception | None = None
    slow: bool = False

    def listen(self, protocolFactory: object) -> Deferred[Any]:
        if self.slow:
            return Deferred()
        if self.error is not None:
            return fail(self.error)
        self.happened.append(f"{self.name} open")
        return succeed(Port(self.happened, self.name, self.number))


class Part(Service):
    def __init__(self, happened: list[str], name: str, error: OSError | None = None) -> None:
        self.happened, self.label, self.error = happened, name, error
        self.stopping: Deferred[None] = Deferred()

    def startService(self) -> None:
        if self.error is not None:
            raise self.error
        super().startService()
        self.happened.append(f"{self.label} started")

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.happened.append(f"{self.label} stops")
        return self.stopping


@define
class House:
    """
    A service, and what happened in it.
    """

    factory: Any
    happened: list[str] = field(factory=list)

    def service(self, *endpoints: Endpoint, parts: tuple[object, ...] = ()) -> LMTPService:
        def end() -> Deferred[None]:
            self.happened.append("end")
            return succeed(None)

        return LMTPService(
            [Listener(f"words of {each.name}", each) for each in endpoints],
            self.factory,
            parts,
            "mail goes there",
            end,
        )


@pytest.fixture
def server(make_server: Callable[..., Any]) -> Any:
    return make_server(Limits())


@pytest.fixture
def house(server: Any) -> House:
    return House(server.factory)


class TestOrder:
    """
    Nothing is lost on the way up or down.
    """

    def test_start_and_stop(self, house: House, no_result: Any, success_of: Any) -> None:
        """
        It stops in the reverse order of its start, each part when the one before has ended.
        """
        parts = [Part(house.happened, name) for name in ("directory", "backend")]
        service = house.service(
            Endpoint(house.happened, "a"), Endpoint(house.happened, "b"), parts=(*parts, object())
        )

        service.privilegedStartService()
        assert ["a open", "b open"] == house.happened
        service.startService()
        assert ["directory started", "backend started"] == house.happened[2:]
        house.happened.clear()

        stopped = service.stopService()
        assert ["a closed", "b closed", "backend stops"] == house.happened
        parts[1].stopping.callback(None)
        assert "directory stops" == house.happened[-1]
        no_result(stopped)
        parts[0].stopping.callback(None)

        success_of(stopped)
        assert "end" == house.happened[-1]

    def test_without_privileges(self, house: House) -> None:
        """
        A runner that knows no privileged start has it all done in one.
        """
        house.service(Endpoint(house.happened, "a")).startService()

        assert ["a open"] == house.happened

    def test_connections_end_before_parts(
        self, house: House, server: Any, world: Any, no_result: Any, success_of: Any
    ) -> None:
        """
        A backend is stopped when the last transaction has ended, and not while it works.
        """
        part = Part(house.happened, "backend")
        part.stopping.callback(None)
        service = house.service(Endpoint(house.happened, "a"), parts=(part,))
        service.startService()
        wire = server.connect()
        wire.says(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n.\r\n")

        stopped = service.stopService()
        assert "a closed" == house.happened[-1]
        no_result(stopped)
        world.held["ann"].callback(None)
        wire.hang_up()

        success_of(stopped)
        assert ["backend stops", "end"] == house.happened[-2:]

    def test_says_where(self, house: House, logged: Any) -> None:
        """
        On start the log says what it listens on, and where mail will go.
        """
        house.service(Endpoint(house.happened, "a")).startService()

        assert [("words of a", IPv4Address("TCP", "127.0.0.1", 8024))] == [
            (event["words"], event["address"]) for event in logged if "words" in event
        ]
        assert ["mail goes there"] == [event["summary"] for event in logged if "summary" in event]


class TestRefusal:
    """
    A service starts as a whole or not at all, and says why in one line.
    """

    @pytest.mark.parametrize(
        ("second", "reason"),
        [
            (
                {
                    "error": CannotListenError(
                        "127.0.0.1", 8024, OSError(errno.EADDRINUSE, "Address already in use")
                    )
                },
                f"Address already in use{CANNOT_LISTEN}",
            ),
            (
                {"error": OSError(errno.EACCES, "Permission denied")},
                f"Permission denied{CANNOT_LISTEN}",
            ),
            (
                {"error": CannotListenError(None, 1, socket.gaierror(-2, "Name not known"))},
                f"Name not known{CANNOT_LISTEN}",
            ),
            ({"error": ValueError("odd")}, f"odd{CANNOT_LISTEN}"),
            ({"slow": True}, "cannot listen on words of b: it takes its time"),
            ({"number": 25}, "words of b is port 25, where LMTP must not be (RFC 2033)"),
        ],
    )
    def test_listening(self, second: dict[str, Any], reason: str, house: House) -> None:
        """
        One endpoint that cannot be had closes those that were.
        """
        service = house.service(
            Endpoint(house.happened, "a"), Endpoint(house.happened, "b", **second)
        )

        with pytest.raises(SystemExit) as caught:
            service.privilegedStartService()

        assert f"twistd lmtp: {reason}" == caught.value.code
        assert "a closed" in house.happened

    def test_part(self, house: House) -> None:
        """
        A part that cannot start is named by what it could not have.
        """
        part = Part(house.happened, "b", OSError(errno.EACCES, "Permission denied", "/srv/mail"))
        service = house.service(Endpoint(house.happened, "a"), parts=(part,))

        with pytest.raises(SystemExit) as caught:
            service.startService()

        assert "twistd lmtp: /srv/mail: Permission denied" == caught.value.code
        assert ["a open", "a closed"] == house.happened

    def test_daemon(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A daemon has no terminal left; twistd carries its last words to the one that it came from.
        """
        null = os.stat(os.devnull)
        monkeypatch.setattr(os, "fstat", lambda _fd: null)
        service = house.service(Endpoint(house.happened, "a", error=OSError("no")))

        told: list[type[BaseException]] = []
        monkeypatch.setattr(sys, "excepthook", lambda kind, *_: told.append(kind))

        with pytest.raises(CannotStart, match="no: cannot listen on words of a;") as caught:
            service.privilegedStartService()

        # The log has it in one line; what else may end the process is told as ever.
        sys.excepthook(CannotStart, caught.value, None)
        sys.excepthook(ZeroDivisionError, ZeroDivisionError(), None)
        assert [ZeroDivisionError] == told
