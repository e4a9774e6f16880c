"""
SMTPSession: the same conversation in SMTP (RFC 5321), for a relay.

It begins with EHLO or HELO, and ends with one reply for all recipients: which is why a relay, that
takes a message for all of them or for none, speaks it, and a store does not.  A client that knows
PRDR gets one for each recipient all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve

from .. import replies
from ..replies import Reply
from ..wire.commands import CommandError
from ..wire.lines import parse_hello
from .events import MessageReceived
from .extensions import VerbAction
from .help import ABOUT_SMTP, SMTP_SYNTAX, help_on
from .reply_queue import Slot
from .server import ServerSession
from .states import State, Verb, advance

#: What is said in other words than to a client of LMTP.
_REWORDED: Final[Mapping[Reply, Reply]] = {replies.LHLO_FIRST: replies.EHLO_FIRST}


class SMTPSession(ServerSession):
    """
    One conversation in SMTP, from the greeting on.
    """

    __slots__ = ("_for_all", "_verdicts")

    @staticmethod
    def _greeting(hostname: str) -> Reply:
        return replies.smtp_greeting(hostname)

    @classmethod
    def _own_actions(cls) -> Mapping[bytes, VerbAction]:
        return _ACTIONS

    @property
    def extension_verbs(self) -> Mapping[bytes, str]:
        """
        The verbs that extensions have for this client, each with what stands behind it.
        """
        return self._extensions.verbs(self)

    def end_text(self, last: bytes = b"") -> None:
        """
        The text is complete: owe one reply for all, or one for each and one more (PRDR).
        """
        self._text_is_open = False
        sender = self._sender
        assert sender is not None, "the state says that MAIL was accepted"
        self._verdicts: list[Reply] = []
        if "PRDR" in sender.parameters:
            self._replies.put(replies.EACH_FOLLOWS)
            slots = self._replies.reserve_many(self._accepted)
        else:
            slots = tuple([Slot() for _ in range(self._accepted)])
        self._for_all = self._replies.reserve()
        self._undelivered = len(slots)
        self._state = State.DELIVERING
        self._events.append(MessageReceived(slots, last))

    def answer_message(self, slot: Slot, reply: Reply) -> bool:
        self._verdicts.append(reply)
        if self._undelivered == 1:
            self._for_all.answer(_for_all(self._verdicts))
        return super().answer_message(slot, reply)

    def end_failed_text(self, reply: Reply) -> None:
        self._replies.put(self._failure or reply)
        self._end_transaction()

    def _refuse(self, reply: Reply) -> None:
        super()._refuse(_REWORDED.get(reply, reply))

    def say_hello(self, argument: bytes, protocol: str) -> None:
        """
        Begin anew with a client that says its name in *protocol*, SMTP or ESMTP.
        """
        after = advance(self._state, Verb.LHLO)
        name = parse_hello(argument)
        self.client = evolve(self.client, name=self._told_name or name, protocol=protocol)
        self._forget_transaction()
        self._state = after
        if protocol == "SMTP":
            self._replies.put(Reply(250, self._hostname))
        else:
            self._replies.put(self._extensions.capabilities(self._hostname, self))
        self._say_what_is_due()


def _for_all(verdicts: list[Reply]) -> Reply:
    """
    What one reply can say about several recipients.  If some have it, the client must not send it to
    them again; who relays takes it for all or for none.
    """
    accepted = [reply for reply in verdicts if reply.is_success]
    if accepted:
        return accepted[0]
    temporary = [reply for reply in verdicts if reply.code < 500]
    return (temporary or verdicts)[0]


def _ehlo(session: ServerSession, argument: bytes) -> None:
    assert isinstance(session, SMTPSession), "it is one of its actions"
    session.say_hello(argument, "ESMTP")


def _helo(session: ServerSession, argument: bytes) -> None:
    assert isinstance(session, SMTPSession), "it is one of its actions"
    session.say_hello(argument, "SMTP")


def _help(session: ServerSession, argument: bytes) -> None:
    assert isinstance(session, SMTPSession), "it is one of its actions"
    session.reply(help_on(argument, session.extension_verbs, SMTP_SYNTAX, ABOUT_SMTP))


def _wrong_hello(_session: ServerSession, _argument: bytes) -> None:
    raise CommandError(replies.SAY_EHLO)


# One for all sessions: who compares it knows it by what it is, not by what is in it.
_ACTIONS: Final[Mapping[bytes, VerbAction]] = {
    **ServerSession._own_actions(),
    b"EHLO": _ehlo,
    b"HELO": _helo,
    b"LHLO": _wrong_hello,
    b"HELP": _help,
}
