"""
ClientTransaction: one message for its recipients, each of whom gets one outcome, whatever the server
says or leaves unsaid.
"""

from __future__ import annotations

from collections.abc import Container
from functools import partial
from typing import TYPE_CHECKING, Any

from ..envelope import DeliverBy, Sender
from ..replies import TLS_SUPPORT_REQUIRED, Reply
from ..wire.command_lines import (
    attribute_lines,
    mail_line,
    original_recipient,
    rcpt_line,
    xtext,
)
from ..wire.heard_replies import HeardReply
from ..wire.text import LineEnds, TextEncoder
from .client_events import RecipientAccepted, RecipientSettled, TextWanted
from .outcomes import Outcome, Stage
from .terms import Dialect, Mailing

if TYPE_CHECKING:
    from .capabilities import Capabilities
    from .client import ClientSession

_TOO_LARGE = Reply(552, "Message larger than the next server takes", (3, 4))
_NO_8BITMIME = Reply(554, "The next server does not take 8-bit text", (6, 3))
_NO_BINARYMIME = Reply(554, "The next server does not take binary text", (6, 3))
_NO_DELIVERBY = Reply(550, "The next server does not know DELIVERBY", (3, 3))
_NO_SMTPUTF8 = Reply(553, "The next server does not take addresses in UTF-8", (6, 7))


class _Everything:
    def __contains__(self, _keyword: object) -> bool:
        return True


def check_mailing(mailing: Mailing) -> None:
    """
    See that *mailing* can be said, whatever the server knows.

    Raises:
        ValueError: There is no recipient; or an address or a parameter cannot be said.
    """
    if not mailing.recipients:
        raise ValueError("no recipients")
    envelope_lines(mailing, _Everything())


def envelope_lines(mailing: Mailing, known: Container[str]) -> tuple[bytes, list[bytes]]:
    """
    MAIL, and RCPT for each recipient, for a server to which the extensions *known* are known.

    Raises:
        ValueError: An address or a parameter cannot be said.
    """
    dsn = "DSN" in known
    parameters: dict[str, Any] = {}
    if mailing.size is not None and "SIZE" in known:
        parameters["SIZE"] = mailing.size
    if mailing.body != "7BIT" and mailing.body in known:
        parameters["BODY"] = mailing.body
    if mailing.needs_utf8():
        parameters["SMTPUTF8"] = True
    if mailing.sender.parameters:
        parameters.update(_of_sender(mailing.sender, known))
        if mailing.sender.parameters.get("AUTH") == "<>" and "AUTH" in known:
            parameters["AUTH"] = "<>"
    codes = "XRESPCODES" in known
    mail = mail_line(mailing.sender.address, parameters)
    rcpts = []
    for recipient in mailing.recipients:
        said = recipient.parameters
        more = _dsn(said) if dsn and said else {}
        if codes and "MAILDATA" in said:
            more["MAILDATA"] = said["MAILDATA"]
        rcpts.append(rcpt_line(recipient.address, more))
    return mail, rcpts


class ClientTransaction:
    """
    *mailing* on its way over the connection of *session*.

    Raises:
        ValueError: An address or a parameter cannot be said; nothing was.
    """

    __slots__ = (
        "_accepted",
        "_chunking",
        "_encoder",
        "_is_text_wanted",
        "_line_ends",
        "_lines",
        "_mailing",
        "_open",
        "_planned_for",
        "_session",
        "_text_begun",
        "_unheard",
    )

    def __init__(self, session: ClientSession, mailing: Mailing) -> None:
        self._session, self._mailing = session, mailing
        #: Recipients without an outcome, in RCPT order; a dict for its quick removal.
        self._open: dict[int, None] = dict.fromkeys(range(len(mailing.recipients)))
        self._accepted: list[int] = []
        self._unheard = True
        self._chunking = False
        self._encoder: TextEncoder | None = None
        self._line_ends: LineEnds | None = None
        self._is_text_wanted = False
        self._text_begun = False
        # Made now, so that a mistake is found before anything is said.
        self._planned_for = session.capabilities
        self._lines = envelope_lines(mailing, session.capabilities)

    # ── the envelope ─────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """
        Say MAIL, RCPT and DATA.
        """
        session, mailing = self._session, self._mailing
        refusal = self._refusal()
        if refusal is not None:
            reply, lacking = refusal
            self._unheard = False
            self.settle_rest(reply, Stage.MAIL, lacking=lacking)
            session.transaction_over()
            return
        capabilities, pipeline = session.capabilities, session.pipeline
        self._chunking = session.terms.chunking and "CHUNKING" in capabilities
        if (
            self._chunking
            and session.terms.dialect is Dialect.SMTP
            and mailing.body != "BINARYMIME"
        ):
            # Some refuse a message with others, however it comes.
            self._line_ends = LineEnds()
        if mailing.xforward:
            known = capabilities.parameters("XFORWARD")
            for line in attribute_lines("XFORWARD", mailing.xforward, known):
                pipeline.say(Stage.XFORWARD, line, _ignored)
        if capabilities is not self._planned_for:
            self._lines = envelope_lines(mailing, capabilities)
        mail, rcpts = self._lines
        pipeline.say(Stage.MAIL, mail, self._mail_answered)
        for position, line in enumerate(rcpts):
            pipeline.say(Stage.RCPT, line, partial(self._rcpt_answered, position))
        if not self._chunking:
            pipeline.say(Stage.DATA, b"DATA\r\n", self._data_answered)

    def _refusal(self) -> tuple[Reply, str | None] | None:
        """
        Why this cannot be sent here, and for lack of which extension.
        """
        session, mailing = self._session, self._mailing
        capabilities = session.capabilities
        if mailing.sender.requires_tls and not (
            session.is_private or (session.is_verified and "REQUIRETLS" in capabilities)
        ):
            # RFC 8689 §4.2.1: whoever does not promise it for the rest of the way does not get it.
            return TLS_SUPPORT_REQUIRED, "REQUIRETLS"
        by = mailing.sender.deliver_by
        if by is not None and by.is_returned and session.terms.dialect is Dialect.SMTP:
            # RFC 2852 §4.1.4: a relay that knows nothing of it may keep the message for days, or take
            # longer than there is time.  A reply in LMTP means that it is delivered.
            if not _is_in_time(by, capabilities):
                return _NO_DELIVERBY, "DELIVERBY"
        if mailing.needs_utf8() and "SMTPUTF8" not in capabilities:
            return _NO_SMTPUTF8, "SMTPUTF8"
        if mailing.body == "BINARYMIME":
            # RFC 3030 §3: only with BDAT.
            if not {"BINARYMIME", "CHUNKING"} <= capabilities.extensions.keys():
                return _NO_BINARYMIME, "BINARYMIME"
        elif mailing.body == "8BITMIME" and "8BITMIME" not in capabilities:
            if mailing.is_ascii is None or not mailing.is_ascii():
                return _NO_8BITMIME, "8BITMIME"
        limit = capabilities.size
        if mailing.size is not None and limit is not None and mailing.size > limit:
            # RFC 1870 §6.1 has it told without trying.
            return _TOO_LARGE, None
        return None

    def _mail_answered(self, reply: HeardReply) -> None:
        self._note(reply)
        if reply.is_success:
            return
        if reply.is_intermediate:
            self._strange(Stage.MAIL, reply)
            return
        self.settle_rest(self._passed_on(reply), Stage.MAIL, reply)
        pipeline = self._session.pipeline
        pipeline.drop_unsaid()
        # If RCPT and DATA have been said, they are answered, too.
        if pipeline.awaited is None:
            self._session.transaction_over()

    def _rcpt_answered(self, position: int, reply: HeardReply) -> None:
        self._note(reply)
        if position in self._open:
            if reply.is_success:
                self._accepted.append(position)
                self._session.tell(RecipientAccepted(position, reply))
            elif reply.is_failure:
                self._settle(position, self._passed_on(reply), Stage.RCPT, reply)
            else:
                self._strange(Stage.RCPT, reply)
                return
        if position == len(self._mailing.recipients) - 1:
            self._last_rcpt_answered()

    def _last_rcpt_answered(self) -> None:
        pipeline = self._session.pipeline
        if not self._accepted and pipeline.awaited is None:
            # DATA was not said yet, and is not worth saying.
            pipeline.drop_unsaid()
            self._session.start_over()
        elif self._chunking:
            self._want_text()

    # ── the text ─────────────────────────────────────────────────────────────────────────────────

    def _data_answered(self, reply: HeardReply) -> None:
        self._note(reply)
        session = self._session
        if reply.is_success:
            self._strange(Stage.DATA, reply)
        elif reply.is_intermediate and self._accepted:
            self._encoder = TextEncoder()
            self._want_text()
        elif reply.is_intermediate:
            self._send_nothing()
        else:
            self.settle_rest(self._passed_on(reply), Stage.DATA, reply)
            session.start_over()

    def _send_nothing(self) -> None:
        """
        The server wants a text for nobody: RFC 2920 §3.1 has it get a single dot.
        """
        session = self._session
        session.pipeline.send(b".\r\n")
        if session.terms.dialect is Dialect.SMTP:
            session.pipeline.expect(Stage.MESSAGE, ".", lambda _reply: session.transaction_over())
        else:
            # RFC 2033 §4.2 wants a 503 here, and no reply for no recipient.  Whoever breaks the one
            # rule may break the other, so that this connection cannot be trusted any more.
            session.transaction_over()
            session.part(Stage.DATA, Reply(451, "354 without any recipient", (5, 0)))

    @property
    def is_text_wanted(self) -> bool:
        """
        `send_text` may be called.
        """
        return self._is_text_wanted

    @property
    def is_chunking(self) -> bool:
        """
        The text goes out with BDAT, and each part of it is answered.
        """
        return self._chunking

    def send_text(self, octets: bytes, *, last: bool) -> None:
        """
        Say some more of the text.
        """
        if not self._is_text_wanted:
            raise RuntimeError("no text is wanted now")
        pipeline = self._session.pipeline
        self._text_begun = True
        if self._encoder is not None:
            pipeline.send(self._encoder.feed(octets))
            if last:
                pipeline.send(self._encoder.end())
                self._is_text_wanted = False
                self._expect_outcomes(".")
            return
        self._is_text_wanted = False
        if self._line_ends is not None:
            octets = self._line_ends.feed(octets)
            if last:
                octets += self._line_ends.end()
        shown = f"BDAT {len(octets)} LAST" if last else f"BDAT {len(octets)}"
        pipeline.send(shown.encode() + b"\r\n")
        pipeline.send(octets)
        if last:
            self._expect_outcomes(shown)
        else:
            pipeline.expect(Stage.TEXT, shown, self._chunk_answered)

    def _want_text(self) -> None:
        self._is_text_wanted = True
        self._session.tell(TextWanted())

    def _chunk_answered(self, reply: HeardReply) -> None:
        if reply.is_success:
            self._want_text()
        elif reply.is_failure:
            # RFC 3030 §2: what was sent is thrown away, and RSET has to come.
            self.settle_rest(self._passed_on(reply), Stage.TEXT, reply)
            self._session.start_over()
        else:
            self._strange(Stage.TEXT, reply)

    def _expect_outcomes(self, shown: str) -> None:
        """
        LMTP answers once for each accepted recipient, in RCPT order (RFC 2033 §4.2); SMTP once.
        """
        pipeline = self._session.pipeline
        if self._session.terms.dialect is Dialect.SMTP:
            pipeline.expect(Stage.MESSAGE, shown, self._message_answered)
            return
        for position in self._accepted:
            pipeline.expect(Stage.MESSAGE, shown, partial(self._outcome_heard, position))
            shown = ""

    def _outcome_heard(self, position: int, reply: HeardReply) -> None:
        if reply.is_intermediate:
            self._strange(Stage.MESSAGE, reply)
            return
        self._settle(position, self._passed_on(reply), Stage.MESSAGE, reply)
        if position == self._accepted[-1]:
            self._session.transaction_over()

    def _message_answered(self, reply: HeardReply) -> None:
        if reply.is_intermediate:
            self._strange(Stage.MESSAGE, reply)
            return
        self.settle_rest(self._passed_on(reply), Stage.MESSAGE, reply)
        self._session.transaction_over()

    # ── outcomes ─────────────────────────────────────────────────────────────────────────────────

    def settle_rest(
        self,
        reply: Reply,
        stage: Stage,
        heard: HeardReply | None = None,
        lacking: str | None = None,
    ) -> None:
        """
        Give all recipients that have no outcome yet this one.
        """
        for position in list(self._open):
            self._settle(position, reply, stage, heard, lacking)

    def interrupted(self, reply: HeardReply) -> bool:
        """
        A *reply* has come before the text was at its end.  A refusal is one for all, as if it had
        waited; True if it was one.
        """
        if not (self._text_begun and reply.is_failure):
            return False
        self.settle_rest(self._passed_on(reply), Stage.TEXT, reply)
        return True

    def _settle(
        self,
        position: int,
        reply: Reply,
        stage: Stage,
        heard: HeardReply | None = None,
        lacking: str | None = None,
    ) -> None:
        del self._open[position]
        session = self._session
        outcome = Outcome(
            reply,
            stage,
            heard,
            session.capabilities.name,
            lacking,
            "DSN" in session.capabilities,
            self._unheard and lacking is None,
        )
        session.tell(RecipientSettled(position, outcome))

    def _passed_on(self, heard: HeardReply) -> Reply:
        tls_failure = self._session.terms.tls_failure
        if heard.code == 530 and tls_failure is not None:
            # RFC 3207 §4: it wants TLS, which has failed.
            return tls_failure
        # 421 is about the connection to the server, not about that of whoever reads the reply.
        return heard.as_reply(451 if heard.code == 421 else None)

    def _note(self, reply: HeardReply) -> None:
        if reply.code != 421:
            self._unheard = False

    def _strange(self, stage: Stage, reply: HeardReply) -> None:
        self._session.out_of_step(stage, f"the server said {reply.code} to {stage.value}")


def _is_in_time(by: DeliverBy, capabilities: Capabilities) -> bool:
    """
    Whether a server takes messages that are to be returned that soon (RFC 2852 §4.1.4.1): behind
    DELIVERBY, it may name its least number of seconds.
    """
    if "DELIVERBY" not in capabilities:
        return False
    least = ",".join(capabilities.parameters("DELIVERBY")).partition(",")[0]
    # RFC 2852 §2: one to nine digits.  What is none tells nothing.
    known = least.isascii() and least.isdigit() and len(least) <= 9
    return not known or int(least) <= by.seconds


def _ignored(_reply: HeardReply) -> None:
    """
    XFORWARD only serves the server's log.
    """


def _of_sender(sender: Sender, known: Container[str]) -> dict[str, Any]:
    """
    The parameters of MAIL, besides those that the message itself asks for.
    """
    given = sender.parameters
    parameters: dict[str, Any] = {}
    if "DSN" in known:
        if "RET" in given:
            parameters["RET"] = given["RET"]
        if "ENVID" in given:
            parameters["ENVID"] = xtext(str(given["ENVID"]))
    if sender.requires_tls and "REQUIRETLS" in known:
        parameters["REQUIRETLS"] = True
    if sender.priority and "MT-PRIORITY" in known:
        parameters["MT-PRIORITY"] = sender.priority
    by = sender.deliver_by
    if by is not None and "DELIVERBY" in known:
        trace = "T" if by.is_traced else ""
        parameters["BY"] = f"{by.seconds};{'R' if by.is_returned else 'N'}{trace}"
    if sender.wants_codes and "XRESPCODES" in known:
        parameters["XRESPCODES"] = given["XRESPCODES"]
    return parameters


def _dsn(said: Any) -> dict[str, Any]:
    """
    The parameters of RCPT that RFC 3461 has.
    """
    parameters: dict[str, Any] = {}
    if "NOTIFY" in said:
        parameters["NOTIFY"] = said["NOTIFY"]
    if "ORCPT" in said:
        parameters["ORCPT"] = original_recipient(str(said["ORCPT"]))
    return parameters
