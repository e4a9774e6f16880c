"""
The log of deliveries, as people and programs read it.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.logger import Logger, formatEvent

from lmtpsvc import replies
from lmtpsvc.delivery.json_log import JSONLog
from lmtpsvc.delivery.log import Timing, log_delivery, log_refusal
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

BOB = Recipient(Address("bob", "example.org"))
ODD = Recipient(Address('jö"rg {x} %s', "bücher.example"))


CLIENT = Client("2001:db8::1", "mx")
TOLD = evolve(
    CLIENT,
    login='ann "b" reply=250',
    session="abc:1",
    origin=Origin(host="198.51.100.7", ident="4F1D2C3B", protocol="ESMTP"),
)


def deliver(
    recipient: Recipient = BOB,
    client: Client = CLIENT,
    asked: Mapping[str, Any] = NO_PARAMETERS,
) -> None:
    envelope = Envelope(Sender(Address("ann", "example.net"), asked), (recipient,), client)
    log_delivery(
        "t1",
        envelope,
        recipient,
        str(recipient),
        1234,
        replies.delivered("t1", str(recipient)),
        Timing(0.0012, 0.5, 1.25),
    )


class TestLines:
    """
    One line for each recipient.
    """

    @pytest.mark.parametrize(
        ("recipient", "line"),
        [
            (
                BOB,
                (
                    "t1 to=<bob@example.org> mailbox=bob@example.org from=<ann@example.net>"
                    " client=2001:db8::1 size=1234 lookup=0.001 store=0.500 total=1.250"
                    " reply=250 2.0.0 <bob@example.org> t1 Delivered"
                ),
            ),
            (
                ODD,
                (
                    't1 to=<"jö\\"rg {x} %s"@bücher.example>'
                    ' mailbox="jö\\"rg {x} %s"@bücher.example from=<ann@example.net>'
                    " client=2001:db8::1 size=1234 lookup=0.001 store=0.500 total=1.250"
                    " reply=250 2.0.0 t1 Delivered"
                ),
            ),
        ],
        ids=["usual", "odd"],
    )
    def test_delivery(self, recipient: Recipient, line: str, logged: Any) -> None:
        """
        All that one looks for in a log is on one line, whatever an address is made of.
        """
        deliver(recipient)

        assert [line] == [formatEvent(event) for event in logged.events]

    def test_told(self, logged: Any) -> None:
        """
        What proxies and MTAs in front have told is there, and nothing where they have not; no name
        can be taken for another field.
        """
        deliver(client=TOLD)
        log_refusal("ann@example.net", TOLD, BOB, replies.NO_SUCH_USER)

        told = (
            r' client=2001:db8::1 login="ann \"b\" reply=250" session=abc:1 origin_ident=4F1D2C3B'
            " origin_client=198.51.100.7 origin_protocol=ESMTP "
        )
        assert [1, 1] == [formatEvent(event).count(told) for event in logged.events]

    @pytest.mark.parametrize(
        ("original", "shown"),
        [
            ("staff@example.org", " client=2001:db8::1 original=<staff@example.org> size=1234 "),
            ("x> reply=250", ' client=2001:db8::1 original="x> reply=250" size=1234 '),
            ("a>b", ' client=2001:db8::1 original="a>b" size=1234 '),
            ("", ' client=2001:db8::1 original="" size=1234 '),
        ],
    )
    def test_original(self, original: str, shown: str, logged: Any) -> None:
        """
        Whom the sender wrote to, if that was told; it cannot be taken for another field.
        """
        deliver(evolve(BOB, parameters={"ORCPT": OriginalRecipient("rfc822", original)}))

        [event] = logged.events
        assert shown in formatEvent(event)
        assert f"rfc822;{original}" == event["original_recipient"]

    def test_refusal(self, logged: Any) -> None:
        """
        A recipient that was refused at RCPT has a line too, and fields for programs.
        """
        log_refusal("ann@example.net", Client("192.0.2.7"), ODD, replies.NO_SUCH_USER)

        (event,) = logged.events
        assert (
            'refused to=<"jö\\"rg {x} %s"@bücher.example> from=<ann@example.net> client=192.0.2.7'
            " reply=550 5.1.1 No such user"
        ) == formatEvent(event)
        assert 550 == event["reply_code"]


def test_events(logged: Any) -> None:
    """
    Observers find what a Logger gives them, in its order.
    """
    deliver(evolve(BOB, parameters={"ORCPT": OriginalRecipient("rfc822", "x")}), TOLD)
    deliver()
    log_refusal("ann@example.net", TOLD, BOB, replies.NO_SUCH_USER)

    for event in list(logged.events):
        fields = {name: value for name, value in event.items() if not name.startswith("log_")}
        event["log_logger"].info(event["log_format"], **fields)
        again = logged.events.pop()
        assert abs(again.pop("log_time") - event.pop("log_time")) < 60
        assert list(again.items()) == list(event.items())
        assert "lmtpsvc.delivery" == event["log_namespace"]


class TestJSON:
    """
    The same for programs.
    """

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "log.json"

    @pytest.fixture
    def log(self, path: Path) -> Iterator[JSONLog]:
        log = JSONLog.to(str(path))
        log.startService()
        yield log
        if log.running:
            log.stopService()

    def test_objects(self, log: JSONLog, path: Path) -> None:
        """
        Each recipient is an object on a line of its own, on disk as soon as it is logged.
        """
        deliver()
        deliver(ODD)
        log_refusal("", Client("local"), BOB, replies.NO_SUCH_USER)

        first, second, third = map(json.loads, path.read_text("utf-8").splitlines())
        assert abs(time.time() - first.pop("time")) < 60
        assert {
            "transaction": "t1",
            "client": "2001:db8::1",
            "client_name": "mx",
            "sender": "ann@example.net",
            "recipient": "bob@example.org",
            "mailbox": "bob@example.org",
            "size": 1234,
            "reply": "250 2.0.0 <bob@example.org> t1 Delivered",
            "reply_code": 250,
            "lookup_seconds": 0.0012,
            "store_seconds": 0.5,
            "total_seconds": 1.25,
        } == first
        assert str(ODD) == second["recipient"]
        assert ("bob@example.org", 550, "local") == (
            third["recipient"],
            third["reply_code"],
            third["client"],
        )

    def test_told(self, log: JSONLog, path: Path) -> None:
        """
        What proxies and MTAs in front have told has fields of its own.
        """
        deliver(client=TOLD)
        deliver(client=evolve(CLIENT, session="abc:1"))

        first, second = map(json.loads, path.read_text("utf-8").splitlines())
        assert {
            "login": 'ann "b" reply=250',
            "session": "abc:1",
            "origin_ident": "4F1D2C3B",
            "origin_client": "198.51.100.7",
            "origin_protocol": "ESMTP",
        }.items() <= first.items()
        assert first.keys() - second.keys() == {
            "login",
            "origin_ident",
            "origin_client",
            "origin_protocol",
        }

    def test_asked(self, log: JSONLog, path: Path) -> None:
        """
        What reports would be recognized by has fields of its own.
        """
        deliver(asked={"ENVID": "QQ 1"})
        deliver(evolve(BOB, parameters={"ORCPT": OriginalRecipient("utf-8", "jörg@x")}))

        first, second = map(json.loads, path.read_text("utf-8").splitlines())
        assert ("QQ 1", None) == (first["envelope_id"], first.get("original_recipient"))
        assert "utf-8;jörg@x" == second["original_recipient"]

    def test_nothing_else(self, log: JSONLog, path: Path) -> None:
        """
        What others log is none of its business.
        """
        Logger(namespace="somebody.else").info("hello")

        assert "" == path.read_text()

    def test_rotated(self, log: JSONLog, path: Path) -> None:
        """
        A file that was moved away is opened anew: logrotate need not tell anybody.
        """
        deliver()
        path.rename(path.with_suffix(".1"))
        deliver()
        deliver()

        assert [1, 2] == [
            len(each.read_text("utf-8").splitlines()) for each in (path.with_suffix(".1"), path)
        ]

    def test_appended(self, log: JSONLog, path: Path) -> None:
        """
        A restart keeps what is there; a stopped log says nothing.
        """
        deliver()
        log.stopService()
        deliver()
        again = JSONLog.to(str(path))
        again.startService()
        deliver()
        again.stopService()

        assert 2 == len(path.read_text().splitlines())

    def test_standard_output(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        ``-`` is standard output.
        """
        output = io.StringIO()
        monkeypatch.setattr(sys, "stdout", output)
        log = JSONLog.to("-")
        log.startService()
        deliver()
        log.stopService()

        assert "t1" == json.loads(output.getvalue())["transaction"]

    def test_cannot_be_opened(self, tmp_path: Path) -> None:
        """
        A path where no file can be is an error when it is named.
        """
        with pytest.raises(OSError):
            JSONLog.to(str(tmp_path / "nowhere" / "log.json"))
