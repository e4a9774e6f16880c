"""
The short way of the delivery log into twistd's text log: not one octet is another one.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve
from twisted.logger import (
    FileLogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    capturedLogs,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.scripts._twistd_unix import UnixAppLogger

from lmtpsvc import replies
from lmtpsvc.delivery import text_log
from lmtpsvc.delivery.log import NAMESPACE, Timing, log_delivery, log_refusal
from lmtpsvc.delivery.text_log import DeliveryText, TextLog
from lmtpsvc.envelope import (
    NO_PARAMETERS,
    Address,
    Client,
    Envelope,
    Origin,
    OriginalRecipient,
    Recipient,
    Sender,
)

from ..rows import each_row

BOB = Recipient(Address("bob", "example.org"))
CLIENT = Client("192.0.2.7", "mx")
TOLD = evolve(
    CLIENT,
    login="ann {b}\nreply=250",
    session="abc:1",
    origin=Origin(host="198.51.100.7", ident="{line}", protocol="ESMTP"),
)
ORCPT = {"ORCPT": OriginalRecipient("rfc822", "staff@example.org")}


def delivered(
    recipient: Recipient = BOB,
    client: Client = CLIENT,
    asked: Mapping[str, Any] = NO_PARAMETERS,
    mailboxes: str = "bob@example.org",
) -> LogEvent:
    with capturedLogs() as events:
        log_delivery(
            "t1",
            Envelope(Sender(Address("ann", "example.net"), asked), (recipient,), client),
            recipient,
            mailboxes,
            1234,
            replies.delivered("t1", str(recipient)),
            Timing(0.0012, 0.5, 12345.25),
        )
    return events[0]


def refused(recipient: Recipient = BOB, client: Client = CLIENT, sender: str = "") -> LogEvent:
    with capturedLogs() as events:
        log_refusal(sender, client, recipient, replies.NO_SUCH_USER)
    return events[0]


def someone(local: str, domain: str = "example.org") -> Recipient:
    return Recipient(Address(local, domain))


EVENTS = {
    "usual": delivered(),
    "everything": delivered(evolve(BOB, parameters=ORCPT), TOLD, {"ENVID": "QQ{1}"}),
    "unicode": delivered(someone("jörg ☃ 𝄞", "bücher.example")),
    "braces": delivered(someone('{x} {0} {} }{ {line} {log_level.name!r:>9} "%s" %(line)s')),
    "line feeds": delivered(mailboxes="a\nb\r\nc\rd\n\n\te\u2028f\x85g\x0ch\n"),
    "surrogates": delivered(mailboxes="\udcff"),
    "controls": delivered(mailboxes="\x00\x1b[31m\x7f"),
    "long": delivered(mailboxes=",".join(f"user{n}@example.org" for n in range(10_000))),
    "nothing": delivered(mailboxes=""),
    "refused": refused(),
    "refused, everything": refused(someone("{sender}\u2028ö"), TOLD, "ann\n{recipient}@[x]"),
}


def formatted(event: LogEvent) -> str | None:
    """
    What Twisted makes of it.
    """
    return textFileLogObserver(io.StringIO()).formatEvent(event)


def alone(event: LogEvent) -> str | None:
    """
    What the short way makes of it, without help.
    """
    return DeliveryText(lambda event: pytest.fail(f"not on the short way: {event}"))(event)


class TestText:
    """
    The text of one event.
    """

    @each_row("event", EVENTS.values(), ids=EVENTS)
    def test_same(self, event: LogEvent) -> None:
        """
        Whatever addresses, clients and mailboxes are made of.
        """
        assert formatted(event) == alone(event)

    @pytest.mark.parametrize(
        "zone",
        [
            "UTC0",
            "Asia/Kathmandu",
            "America/St_Johns",
            "Europe/Berlin",
            "Australia/Lord_Howe",
            "CET-1CEST,M3.5.0,M10.5.0/3",
        ],
    )
    def test_time(self, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        In each time zone; when summer begins and ends; within one second and from one to another,
        forwards and backwards.
        """
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        short = DeliveryText(formatted)
        # 2026: the ends of summer in Newfoundland, Berlin, and on Lord Howe (half an hour).
        begins = [
            1795521600,
            1772955000,
            1793511000,
            1774746000,
            1792890000,
            1775314800,
            1790348400,
        ]
        fractions = [0.0, 0.25, 0.5, 0.999998, 0.999999, 0.9999995, 0.9999996, 0.9999999]
        try:
            for second in [begin + step for begin in begins for step in (-1, 0, 1, 0, -1)]:
                for fraction in fractions:
                    event = {**EVENTS["usual"], "log_time": second + fraction}
                    assert formatted(event) == short(event)
        finally:
            monkeypatch.undo()
            time.tzset()

    @each_row("when", [-1.5, -0.5, 0.0, 0.5, 0, 1790000000, None, "x", 1e300])
    def test_odd_time(self, when: object) -> None:
        """
        A time is whatever another observer has made of it.
        """
        event = {**EVENTS["usual"], "log_time": when}
        texts = []
        for formatter in (formatted, DeliveryText(formatted)):
            try:
                texts.append(formatter(dict(event)))
            except Exception as error:  # as Twisted's own fails
                texts.append(repr(error))

        assert texts[0] == texts[1]

    @each_row(
        "change",
        [
            {"log_system": "theirs"},
            {"log_system": None},
            {"log_system": ""},
            {"log_level": LogLevel.warn},
            {"log_level": None},
            {"log_namespace": "theirs"},
            {"log_format": None},
            {"log_format": "{line} {size:>9}"},
            {"log_format": b"{line}"},
            {"log_failure": Failure(ValueError("x"))},
            {"log_flattened": {"line!:": "flat"}},
            {"line": ""},
            {"line": 7},
            {"line": ["a\n"]},
            {"line": Failure(ValueError("x"))},
            {"log_source": object()},
            {"message": ("old",), "system": "-", "isError": 0},
        ],
        ids=" ".join,
    )
    def test_changed(self, change: dict[str, Any]) -> None:
        """
        Another observer may have changed the event before.
        """
        event = {**EVENTS["usual"], **change}

        assert formatted(event) == DeliveryText(formatted)(event)

    @each_row("field", sorted(EVENTS["usual"].keys() | EVENTS["refused"].keys()))
    @each_row("name", ["usual", "refused"])
    def test_incomplete(self, name: str, field: str) -> None:
        """
        Or taken something out of it.
        """
        event = {key: value for key, value in EVENTS[name].items() if key != field}

        assert formatted(event) == DeliveryText(formatted)(event)

    def test_others(self) -> None:
        """
        Events that are not of deliveries.
        """
        for event in ({}, {"log_format": "x"}, {"log_namespace": NAMESPACE}):
            assert formatted(event) == DeliveryText(formatted)(event)


class Recorded(io.StringIO):
    """
    A file that notes each call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, text: str) -> int:
        self.calls.append(text)
        return super().write(text)

    def flush(self) -> None:
        self.calls.append("flush")


class House:
    """
    A publisher with some *observers*, and the service.
    """

    def __init__(self, *observers: Any) -> None:
        self.publisher = LogPublisher(*observers)
        self.text_log = TextLog(self.publisher)
        self.text_log.startService()

    def log_all(self) -> None:
        """
        Deliveries, and others in between.
        """
        other = Logger("somebody.else", observer=self.publisher)
        for event in EVENTS.values():
            if "\udcff" not in event.get("mailbox", ""):
                self.publisher(dict(event))
                other.info("{hello}\n", hello="hello\nworld")


@pytest.fixture
def frozen_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted.logger._logger.time", lambda: 1795521600.5)


@pytest.mark.usefixtures("frozen_time")
class TestFile:
    """
    What stands in the file.
    """

    def test_order(self) -> None:
        """
        Every line is written and flushed when it comes, among those of others.
        """
        standard, short = Recorded(), Recorded()
        house = House(textFileLogObserver(standard))
        house.text_log.stopService()
        house.log_all()
        House(textFileLogObserver(short)).log_all()

        assert standard.calls == short.calls
        assert "flush" == short.calls[1]

    def test_octets(self, tmp_path: Path) -> None:
        """
        In a file of octets, too.
        """
        standard, short = io.BytesIO(), io.BytesIO()
        house = House(textFileLogObserver(standard))
        house.text_log.stopService()
        house.log_all()
        House(textFileLogObserver(short)).log_all()

        assert standard.getvalue() == short.getvalue() != b""

    def test_rotation(self, tmp_path: Path) -> None:
        """
        The log file of twistd is full with the same line; one that is asked to begin anew does.
        """
        for name in ("standard", "short"):
            (tmp_path / name).mkdir()
            file = LogFile("log", str(tmp_path / name), rotateLength=700)
            house = House(textFileLogObserver(cast("Any", file)))
            if name == "standard":
                house.text_log.stopService()
            house.log_all()
            file.rotate()
            house.publisher(dict(EVENTS["usual"]))
            file.close()

        standard, short = (
            {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
            for name in ("standard", "short")
        )
        assert standard == short
        assert len(short) > 2
        assert 1 == short["log"].count(b"\n")

    def test_failing(self) -> None:
        """
        A disk that is full is told to the other observers, as ever; the next line is written.
        """
        file, said = Recorded(), list[LogEvent]()
        failures = [OSError(28, "No space left on device")]
        write = file.write

        def full(text: str) -> int:
            if failures:
                raise failures.pop()
            return write(text)

        file.write = full  # type: ignore[method-assign]
        house = House(textFileLogObserver(file), said.append)
        house.publisher(dict(EVENTS["usual"]))
        house.publisher(dict(EVENTS["usual"]))

        assert formatted(EVENTS["usual"]) == file.getvalue()
        assert ["No space left on device"] == [
            event["log_failure"].value.strerror for event in said if "log_failure" in event
        ]


def formats_alone(event: LogEvent) -> str:
    return "mine\n"


class Mine(FileLogObserver):
    """
    Looks like the standard one.
    """


def standard() -> FileLogObserver:
    return textFileLogObserver(io.StringIO())


class TestService:
    """
    Who gets the short way, and for how long.
    """

    def test_while_it_runs(self) -> None:
        """
        It is as it was before when the service has stopped, and can be started again.
        """
        observer = standard()
        before = observer.formatEvent
        house = House(observer)
        taken: object = observer.formatEvent
        house.text_log.stopService()

        assert isinstance(taken, DeliveryText)
        assert before is observer.formatEvent
        house.text_log.startService()
        assert isinstance(observer.formatEvent, DeliveryText)

    def test_twistd(self, tmp_path: Path) -> None:
        """
        The one of twistd, to standard output and to a file.
        """
        for options in (
            {"nodaemon": True},
            {"nodaemon": True, "logfile": "-"},
            {"nodaemon": False, "logfile": str(tmp_path / "log")},
        ):
            observer = UnixAppLogger(options)._getLogObserver()
            House(observer)
            assert isinstance(observer.formatEvent, DeliveryText)

    @pytest.mark.parametrize(
        "observer",
        [
            FileLogObserver(io.StringIO(), formats_alone),
            FileLogObserver(io.StringIO(), partial(formats_alone)),
            Mine(io.StringIO(), standard().formatEvent),
            textFileLogObserver(io.StringIO(), timeFormat="%H:%M"),
            textFileLogObserver(io.StringIO(), timeFormat=None),
            jsonFileLogObserver(io.StringIO()),
        ],
    )
    def test_others(self, observer: FileLogObserver) -> None:
        """
        Not those that write something else.
        """
        before = observer.formatEvent
        House(observer)

        assert before is observer.formatEvent

    def test_another_twisted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Where Twisted is made otherwise, everything stays as it is.
        """
        TextLog(cast("LogPublisher", object())).startService()
        observer = FileLogObserver(io.StringIO(), partial(formats_alone))
        before = observer.formatEvent
        monkeypatch.setattr(text_log, "textFileLogObserver", lambda _: observer)
        House(observer)

        assert before is observer.formatEvent

    def test_second_service(self) -> None:
        """
        Two services in one process do not take each other's.
        """
        observer = standard()
        before = observer.formatEvent
        house = House(observer)
        taken: object = observer.formatEvent
        second = TextLog(house.publisher)
        second.startService()
        second.stopService()

        assert taken is observer.formatEvent
        house.text_log.stopService()
        assert before is observer.formatEvent

    def test_replaced(self) -> None:
        """
        What somebody else has put there since stays.
        """
        observer = standard()
        house = House(observer)
        observer.formatEvent = formats_alone
        house.text_log.stopService()

        assert formats_alone is observer.formatEvent
