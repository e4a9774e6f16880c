"""
Introduction: all that is said before the first transaction: greeting, LHLO, STARTTLS, AUTH, XCLIENT.

What was heard before TLS, before XCLIENT is forgotten, and asked for again (RFC 3207 §4.2): somebody
in between may have said it.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from ..replies import Reply
from ..wire.command_lines import attribute_lines, hello_line
from ..wire.heard_replies import HeardReply
from .capabilities import Capabilities, read_capabilities
from .client_events import TLSWanted
from .outcomes import Stage
from .sasl_client import AuthenticationError, Mechanism, choose
from .terms import TLS, Dialect

if TYPE_CHECKING:
    from .client import ClientSession

#: Challenges that a server may pose: no mechanism has more than three.
MAX_CHALLENGES: Final = 8

_NO_CAPABILITIES: Final = Capabilities()


class Introduction:
    """
    Leads a *session* from the greeting to where transactions may begin, and then calls *done*.
    """

    __slots__ = ("_challenges", "_done", "_logged_in", "_session", "_tls_refused", "_xclient")

    def __init__(self, session: ClientSession, done: Callable[[], None]) -> None:
        self._session = session
        self._done = done
        self._tls_refused = False
        self._logged_in = False
        self._challenges = 0
        self._xclient: Mapping[str, str | None] = {}
        session.pipeline.expect(Stage.GREETING, "", self._greeted)

    def tls_established(self) -> None:
        """
        Start anew, encrypted.
        """
        self._hello()

    def introduces(self, attributes: Mapping[str, str | None]) -> bool:
        """
        The server takes *attributes* for those of its client, or knows no XCLIENT.
        """
        return attributes == self._xclient or "XCLIENT" not in self._session.capabilities

    def may_introduce(self, attributes: Mapping[str, str | None]) -> bool:
        """
        The server can be told *attributes*.  What it was told before can be replaced, but never taken
        back.
        """
        return self._xclient.keys() <= attributes.keys()

    def introduce(self, attributes: Mapping[str, str | None], then: Callable[[], None]) -> None:
        """
        Say XCLIENT with *attributes*, and LHLO again; then call *then*.
        """
        session = self._session
        known = session.capabilities.parameters("XCLIENT")
        lines = list(attribute_lines("XCLIENT", attributes, known))
        self._xclient = attributes
        if not lines:
            then()
            return
        self._done = then

        def answered(reply: HeardReply) -> None:
            if not reply.is_success:
                self._refused(Stage.XCLIENT, reply)
            elif lines:
                say()
            else:
                self._hello()

        def say() -> None:
            session.pipeline.say(Stage.XCLIENT, lines.pop(0), answered)

        say()

    # ── greeting and LHLO ────────────────────────────────────────────────────────────────────────

    def _greeted(self, reply: HeardReply) -> None:
        if not reply.is_success:
            self._refused(Stage.GREETING, reply)
            return
        self._hello()

    def _hello(self) -> None:
        session = self._session
        session.capabilities = _NO_CAPABILITIES
        session.pipeline.pipelining = False
        verb = "LHLO" if session.terms.dialect is Dialect.LMTP else "EHLO"
        line = hello_line(verb, session.terms.hostname)
        session.pipeline.say(Stage.HELLO, line, self._hello_answered)

    def _hello_answered(self, reply: HeardReply) -> None:
        session = self._session
        if reply.is_success:
            session.capabilities = read_capabilities(reply)
            self._go_on()
        elif session.terms.dialect is Dialect.SMTP and reply.code in {500, 501, 502, 504}:
            # RFC 5321 §3.2: a server from before 1995.
            line = hello_line("HELO", session.terms.hostname)
            session.pipeline.say(Stage.HELLO, line, self._helo_answered)
        else:
            self._refused(Stage.HELLO, reply)

    def _helo_answered(self, reply: HeardReply) -> None:
        if reply.is_success:
            self._session.capabilities = Capabilities(reply.lines[0].split(" ")[0])
            self._go_on()
        else:
            self._refused(Stage.HELLO, reply)

    def _go_on(self) -> None:
        """
        What is missing yet, in this order: TLS, AUTH, XCLIENT.
        """
        session, terms = self._session, self._session.terms
        if terms.tls is not TLS.NONE and not (session.is_encrypted or self._tls_refused):
            self._start_tls()
        elif terms.login is not None and not self._logged_in:
            self._log_in()
        elif terms.xclient and not self.introduces(terms.xclient):
            self.introduce(terms.xclient, self._done)
        else:
            session.pipeline.pipelining = terms.pipelining and "PIPELINING" in session.capabilities
            self._done()

    # ── STARTTLS ─────────────────────────────────────────────────────────────────────────────────

    def _start_tls(self) -> None:
        session = self._session
        if "STARTTLS" in session.capabilities:
            session.pipeline.say(Stage.STARTTLS, b"STARTTLS\r\n", self._tls_answered)
        elif session.terms.tls is TLS.MAY:
            self._tls_refused = True
            self._go_on()
        else:
            session.part(
                Stage.STARTTLS,
                Reply(451, "TLS is required, and the server does not offer it", (7, 4)),
            )

    def _tls_answered(self, reply: HeardReply) -> None:
        session = self._session
        if reply.is_success:
            if session.has_unread:
                # Said in the clear to be read as if it had come encrypted (CVE-2011-0411).
                session.out_of_step(
                    Stage.STARTTLS, "something was said in the clear behind STARTTLS"
                )
            else:
                session.tell(TLSWanted())
        elif session.terms.tls is TLS.MAY and reply.code != 421:
            self._tls_refused = True
            self._go_on()
        else:
            self._refused(Stage.STARTTLS, reply)

    # ── AUTH ─────────────────────────────────────────────────────────────────────────────────────

    def _log_in(self) -> None:
        session, login = self._session, self._session.terms.login
        assert login is not None, "asked for by who calls"
        try:
            name, mechanism = choose(
                login, session.capabilities.parameters("AUTH"), secure=session.is_secure
            )
        except AuthenticationError as error:
            session.part(Stage.AUTH, Reply(451, f"Cannot authenticate: {error}"[:400], (7, 0)))
            return
        line = f"AUTH {name}".encode()
        initial = mechanism.initial()
        if initial is not None:
            # RFC 4954 §4: "=" is an initial response of no octets.
            line += b" " + (b64encode(initial) or b"=")
        self._challenges = 0
        session.pipeline.say(
            Stage.AUTH,
            line + b"\r\n",
            lambda reply: self._challenged(mechanism, reply),
            f"AUTH {name}",
        )

    def _challenged(self, mechanism: Mechanism, reply: HeardReply) -> None:
        pipeline = self._session.pipeline
        if reply.is_intermediate:
            self._challenges += 1
            try:
                if self._challenges > MAX_CHALLENGES:
                    raise AuthenticationError("the server asks without end")
                answer = mechanism.respond(_challenge(reply))
            except AuthenticationError as error:
                self._session.out_of_step(Stage.AUTH, f"Cannot authenticate: {error}")
                return
            pipeline.say(
                Stage.AUTH,
                b64encode(answer) + b"\r\n",
                lambda reply: self._challenged(mechanism, reply),
                "(answer)",
            )
        elif reply.is_success:
            try:
                mechanism.finish()
            except AuthenticationError as error:
                self._session.out_of_step(Stage.AUTH, f"Cannot authenticate: {error}")
                return
            self._logged_in = True
            self._go_on()
        else:
            self._refused(Stage.AUTH, reply)

    # ── refusals ─────────────────────────────────────────────────────────────────────────────────

    def _refused(self, stage: Stage, heard: HeardReply) -> None:
        """
        No mail goes over this connection.  For the mail that is a temporary failure: it says nothing
        about sender, recipients or message.
        """
        code = heard.code if 400 <= heard.code < 500 and heard.code != 421 else 451
        reply = heard.as_reply(code, f"The server said {heard.code} ({stage.value}): ")
        self._session.part(stage, reply, heard)


def _challenge(reply: HeardReply) -> bytes:
    """
    What a 334 asks.

    Raises:
        AuthenticationError: It is not in Base64.
    """
    try:
        return b64decode(reply.lines[0].strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AuthenticationError("a challenge that is not in Base64") from error
