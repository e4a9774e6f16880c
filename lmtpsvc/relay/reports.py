"""
Which reports a message is to have: one for each kind of news, for all recipients that there is any of.

RFC 3461 §5 says who is told what; RFC 5321 §4.5.5 that a message without a sender never is.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.logger import Logger

from ..client import Dialect, Outcome
from ..delivery.report import MAX_HEADERS, Action, Fate, Occasion, delivery_report
from ..envelope import Recipient, Sender
from ..replies import Reply
from .entries import Entry, Waypoint
from .ledger import New
from .schedule import Schedule

_log = Logger(namespace="lmtpsvc.relay")

#: A message up to so many octets is given back whole, unless its sender has said otherwise; one that
#: is larger than the second only ever has its headers given back.
SMALL: Final = 65_536
MOST: Final = 1 << 20

_name = re.compile(r"[!-~]{1,253}").fullmatch
_reply = re.compile(r"([2-5][0-9]{2}) (?:[245]\.([0-9]{1,3})\.([0-9]{1,3}) )?([ -~]*)").fullmatch


def wants(recipient: Recipient, sender: Sender, action: Action) -> bool:
    """
    Whether the *sender* is to be told.

    Who has not said when wants to know of failures and delays (RFC 3461 §4.1).
    """
    if sender.address is None:
        return False
    notify = recipient.notify
    if notify is None:
        return action in {Action.FAILED, Action.DELAYED}
    return _ASKED[action] in notify


_ASKED: Final = {
    Action.FAILED: "FAILURE",
    Action.DELAYED: "DELAY",
    Action.RELAYED: "SUCCESS",
    Action.DELIVERED: "SUCCESS",
}


def after_success(
    recipient: Recipient, sender: Sender, outcome: Outcome, to: Dialect
) -> Action | None:
    """
    What to tell of a recipient that the next server has taken: nothing, if that one knows to whom
    (RFC 3461 §5.2.2).  With LMTP, it is in the mailbox (RFC 2033 §1).
    """
    action = Action.DELIVERED if to is Dialect.LMTP else Action.RELAYED
    return action if not outcome.dsn and wants(recipient, sender, action) else None


class Reports:
    """
    Makes reports in the name of *hostname*.  *seconds* says what time it is, and *schedule* until
    when what waits is tried.
    """

    def __init__(self, hostname: str, schedule: Schedule, seconds: Callable[[], float]) -> None:
        self._hostname, self._schedule, self._seconds = hostname, schedule, seconds

    def make(self, entry: Entry, text: Callable[[int], bytes]) -> list[New]:
        """
        All that *entry* is to have now; *text* reads so many octets of the message.
        """
        return [
            self._one(entry, action, told, text)
            for action in Action
            if (told := [each for each in entry.recipients if each.report is action])
        ]

    def _one(
        self, entry: Entry, action: Action, told: list[Waypoint], text: Callable[[int], bytes]
    ) -> New:
        sender = entry.sender
        assert sender.address is not None, "a message without a sender is never reported"
        headers, content = b"", b""
        # RFC 8689 §5: what must not leave in the clear is not told, as nobody knows how it will.
        if not sender.requires_tls:
            if action is Action.FAILED and _is_whole(entry):
                content = text(entry.size)
            headers = text(MAX_HEADERS)
        until = entry.arrived + self._schedule.give_up if action is Action.DELAYED else None
        by = sender.deliver_by
        occasion = Occasion(
            entry.id,
            sender.address,
            sender.envelope_id,
            entry.arrived,
            [Fate(each.recipient, reply_in(each.reply), _server(each)) for each in told],
            headers,
            action,
            until,
            content,
            deliver_by=None if by is None else entry.arrived + by.seconds,
        )
        # Where the sender's address is ASCII, so are its reports: whoever is next can take them.
        utf8 = not str(sender.address).isascii()
        octets = delivery_report(
            occasion, self._hostname, self._seconds(), os.urandom(12).hex(), utf8=utf8
        )
        # RFC 3461 §6.1: nobody reports a report.
        to = Recipient(sender.address, {"NOTIFY": frozenset({"NEVER"})})
        parameters = {"SMTPUTF8": True} if utf8 else {}
        new = New(os.urandom(8).hex(), Sender(None, parameters), (to,), partial(io.BytesIO, octets))
        _log.info(
            "{id}: {report} tells <{sender}>: {action} for {to}",
            id=entry.id,
            report=new.id,
            sender=str(sender),
            action=action.value,
            to=", ".join(f"<{each.recipient}>" for each in told),
        )
        return new


def reply_in(line: str) -> Reply:
    """
    The reply that the queue has kept as a *line*.
    """
    match = _reply(line)
    if match is None:
        return Reply(451, "Nothing is known of the last attempt", (0, 0))
    status = (int(match[2]), int(match[3])) if match[2] else None
    return Reply(int(match[1]), match[4][:496], status)


def _is_whole(entry: Entry) -> bool:
    if entry.sender.smtputf8 or entry.sender.is_binary or entry.sender.returned == "HDRS":
        return False
    return entry.size <= (MOST if entry.sender.returned == "FULL" else SMALL)


def _server(each: Waypoint) -> str:
    return each.server if _name(each.server) else ""
