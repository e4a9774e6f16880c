"""
Reply, and every reply this service sends of its own accord, by name.

One place for the words a client reads: whoever wants to know what is said when, reads this file.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import field, frozen

from .response_codes import ResponseCode, write

#: RFC 5321 §4.5.3.1.5: a reply line is at most 512 octets, with code and CRLF; what stands before
#: the text takes at most 16 (``"250 2.999.999 "`` and CRLF).
MAX_TEXT = 496


# RFC 3463 §2.
_subject_and_detail = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}").fullmatch

# Past what keeps a Reply as it is.
_set = object.__setattr__


@lru_cache(maxsize=256)
def _beginning(code: int, status: tuple[int, int] | None) -> str:
    """
    What a line of a reply begins with (RFC 5321 §4.2, RFC 2034 §4).

    Raises:
        ValueError: There is no such code.
    """
    if not 200 <= code <= 599:
        raise ValueError(f"not a reply code: {code}")
    if status is None:
        return str(code)
    subject_and_detail = f"{status[0]}.{status[1]}"
    if _subject_and_detail(subject_and_detail) is None:
        raise ValueError(f"not an enhanced code: {status}")
    return f"{code} {code // 100}.{subject_and_detail}"


@frozen
class Reply:
    """
    One complete answer to one command.

    *codes* are for clients that have asked for them, see `with_codes`; nobody else hears of them.

    The class digit lives in *code* alone; *status* adds subject and detail.  So the two codes
    cannot disagree, which RFC 2034 §4 forbids.  *text* is a single printable line: nothing that a
    backend says can put a second reply on the wire.

    Raises:
        ValueError: *code* is not 200 to 599, *status* not two numbers of at most three digits, or
            *text* not one printable ASCII line of at most 496 octets.
    """

    code: int
    text: str
    status: tuple[int, int] | None = None
    codes: tuple[ResponseCode, ...] = ()
    #: The line as it goes out, CRLF included (RFC 5321 §4.2), made once: replies are constants.
    wire: bytes = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        text, begins = self.text, _beginning(self.code, self.status)
        # RFC 5321 §4.2 textstring: HT and printable ASCII.  HT is left out because nobody needs it.
        if len(text) > MAX_TEXT or not (text.isascii() and text.isprintable()):
            raise ValueError(f"not one printable line of at most {MAX_TEXT} octets: {text!r}")
        object.__setattr__(self, "wire", f"{begins} {text}\r\n".encode("ascii"))

    @property
    def is_success(self) -> bool:
        """
        A Positive Completion reply (RFC 2033 §4).
        """
        return self.code < 300

    def with_codes(self) -> Reply:
        """
        The reply that says its codes, too.
        """
        if not self.codes:
            return self
        return Reply(self.code, write(self.codes, self.text, MAX_TEXT), self.status, self.codes)

    def __str__(self) -> str:
        return self.wire[:-2].decode("ascii")


@frozen
class PassedOn:
    """
    What a delivery may end with that has only given the message to an SMTP server, which passes it on
    (RFC 3461 §5.2.2): the *reply* there, what the *server* calls itself, if it does, and *codes* for
    our own reply.
    """

    reply: Reply
    server: str = ""
    codes: tuple[ResponseCode, ...] = ()


@frozen
class MultilineReply:
    """
    One answer of several lines, as LHLO and HELP have (RFC 5321 §4.2.1).

    *status* stands on every line (RFC 2034 §4), and is None for LHLO, which that section exempts.

    Raises:
        ValueError: As for Reply; or there is no line.
    """

    code: int
    lines: tuple[str, ...]
    status: tuple[int, int] | None = None
    wire: bytes = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not self.lines:
            raise ValueError("a reply has at least one line")
        *others, last = (Reply(self.code, line, self.status).wire for line in self.lines)
        continued = [line[:3] + b"-" + line[4:] for line in others]
        object.__setattr__(self, "wire", b"".join([*continued, last]))

    @property
    def is_success(self) -> bool:
        """
        A Positive Completion reply (RFC 2033 §4).
        """
        return self.code < 300


@frozen
class AddressReply:
    """
    One answer that has an address on each line, as VRFY and EXPN have (RFC 5321 §3.5).

    With *utf8*, which the client must have asked for, they may be any address (RFC 6531 §3.7.4.2).

    Raises:
        ValueError: An address is too long for a line, or has what must not be in one; or there is
            none.
    """

    code: int
    addresses: tuple[str, ...]
    status: tuple[int, int]
    utf8: bool = False
    wire: bytes = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not self.addresses:
            raise ValueError("a reply has at least one line")
        lines = []
        for address in self.addresses:
            text = f"<{address}>"
            octets = text.encode()
            if len(octets) > MAX_TEXT or not (text.isprintable() and (self.utf8 or text.isascii())):
                raise ValueError(f"this cannot stand in a reply: {address!r}")
            lines.append(octets)
        code, (subject, detail) = self.code, self.status
        status = f"{code // 100}.{subject}.{detail} ".encode()
        *others, last = lines
        continued = [b"%d-%s%s\r\n" % (code, status, line) for line in others]
        wire = b"".join([*continued, b"%d %s%s\r\n" % (code, status, last)])
        object.__setattr__(self, "wire", wire)

    @property
    def is_success(self) -> bool:
        return self.code < 300


# ── greetings and farewells ──────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=16)
def greeting(hostname: str) -> Reply:
    """
    The first line a client sees.  RFC 2034 §4 keeps enhanced codes out of it.
    """
    return Reply(220, f"{hostname} LMTP lmtpsvc ready")


@lru_cache(maxsize=16)
def smtp_greeting(hostname: str) -> Reply:
    """
    The same in SMTP (RFC 5321 §4.2).
    """
    return Reply(220, f"{hostname} ESMTP lmtpsvc ready")


@lru_cache(maxsize=16)
def goodbye(hostname: str) -> Reply:
    """
    The answer to QUIT.
    """
    return Reply(221, f"{hostname} closing connection", (0, 0))


# RFC 5321 §3.8: 421 may come at any time, and the connection closes behind it.
SHUTTING_DOWN = Reply(421, "Service is shutting down, try again later", (3, 2))
IDLE_TOO_LONG = Reply(421, "Nothing heard for too long, closing connection", (4, 2))
TOO_MANY_ERRORS = Reply(421, "Too many errors, closing connection", (7, 0))
TOO_MANY_LOGINS = Reply(421, "Too many failed logins, closing connection", (7, 0))
TOO_MANY_CONNECTIONS = Reply(421, "Too many connections, try again later", (3, 2))

# ── commands ─────────────────────────────────────────────────────────────────────────────────────

OK = Reply(250, "OK", (0, 0))
SENDER_OK = Reply(250, "Sender OK", (1, 0))
# RFC 6710 §4.1: the text begins with the new priority.
NOT_URGENT = Reply(250, "0 is the priority of this message, as yours is not trusted", (3, 6))
RECIPIENT_OK = Reply(250, "Recipient OK", (1, 5))
START_TEXT = Reply(354, "Start mail input; end with <CRLF>.<CRLF>")
START_TLS = Reply(220, "Ready to start TLS", (0, 0))
EACH_FOLLOWS = Reply(353, "A reply for each recipient follows, then one for the message")
CANNOT_VERIFY = Reply(252, "Cannot VRFY, but try RCPT and see", (1, 5))
NOTHING_MORE_TO_SAY = Reply(250, "Each reply says all that there is to say", (0, 0))
AS_MANY_AS_YOU_LIKE = Reply(250, "OK, but more transactions are welcome", (0, 0))
# RFC 6531 §3.7.4.2, for VRFY and EXPN.
CANNOT_SAY_IN_ASCII = Reply(252, "The answer needs the SMTPUTF8 parameter", (6, 8))
CANNOT_LIST_IN_ASCII = Reply(550, "The list needs the SMTPUTF8 parameter", (6, 8))
# RFC 5321 §3.5.1
WHICH_DOMAIN = Reply(553, "Nobody of that name in this domain; say which you mean", (1, 4))
NO_LIST = Reply(550, "That is a user, and no list", (1, 0))

NOT_IMPLEMENTED = Reply(502, "Command not implemented", (5, 1))
NO_TERMINALS = Reply(502, "Mail goes to mailboxes, not to terminals", (5, 1))
NO_QUEUE = Reply(502, "There is no queue here, and mail goes one way", (5, 1))
NO_SUCH_TOPIC = Reply(504, "No help on that", (5, 4))
UNKNOWN_COMMAND = Reply(500, "Command unrecognized", (5, 2))
SAY_LHLO = Reply(500, "This is LMTP (RFC 2033): say LHLO, not HELO or EHLO", (5, 1))
SAY_EHLO = Reply(500, "This is SMTP (RFC 5321): say EHLO, not LHLO", (5, 1))
LINE_TOO_LONG = Reply(500, "Line too long", (5, 2))
LINE_ENDING = Reply(500, "A command line ends with CR LF and has no other CR, LF or NUL", (5, 2))
SYNTAX = Reply(501, "Syntax error in parameters", (5, 4))
NO_PARAMETERS = Reply(501, "No parameters are allowed here", (5, 4))
BAD_HELLO = Reply(501, "Syntax: LHLO domain", (5, 4))
BAD_MAIL = Reply(501, "Syntax: MAIL FROM:<address> [parameters]", (5, 4))
BAD_RCPT = Reply(501, "Syntax: RCPT TO:<address> [parameters]", (5, 4))
BAD_BDAT = Reply(501, "Syntax: BDAT size [LAST]", (5, 4))
# What follows it is text, and nobody knows how much of it.
UNREADABLE_BDAT = Reply(501, "Syntax: BDAT size [LAST]; closing connection", (5, 4))
BAD_VRFY = Reply(501, "Syntax: VRFY address [SMTPUTF8]", (5, 4))
BAD_EXPN = Reply(501, "Syntax: EXPN alias [SMTPUTF8]", (5, 4))
BAD_SENDER = Reply(501, "Bad sender address syntax", (1, 7))
BAD_RECIPIENT = Reply(501, "Bad recipient address syntax", (1, 3))
# RFC 6531 §3.5 has 550 for a sender, and 553 for a recipient.
SENDER_NEEDS_UTF8 = Reply(550, "A non-ASCII sender needs the SMTPUTF8 parameter on MAIL", (6, 7))
NEED_UTF8 = Reply(553, "A non-ASCII address needs the SMTPUTF8 parameter on MAIL", (6, 7))
UNKNOWN_PARAMETER = Reply(555, "Parameter not recognized or not implemented", (5, 4))
BAD_PARAMETER = Reply(501, "Bad value of a parameter", (5, 4))
REPEATED_PARAMETER = Reply(501, "Parameter given twice", (5, 4))
BAD_ATTRIBUTE = Reply(501, "Syntax: attribute=value, in xtext", (5, 4))
UNKNOWN_ATTRIBUTE = Reply(501, "Attribute not recognized", (5, 4))
BAD_TRACE = Reply(501, "Syntax: TRACE word", (5, 4))
NOT_IMPLEMENTED = Reply(502, "Command not implemented", (5, 1))

# RFC 4954 §4, §6.
AUTHENTICATED = Reply(235, "Authenticated", (7, 0))
RESPONSE_TOO_LONG = Reply(500, "Authentication exchange line is too long", (5, 6))
BAD_AUTH = Reply(501, "Syntax: AUTH mechanism [initial-response]", (5, 4))
BAD_BASE64 = Reply(501, "This is not Base64", (5, 2))
BAD_RESPONSE = Reply(501, "This is not what the mechanism asks for", (5, 2))
LOGIN_CANCELLED = Reply(501, "Authentication cancelled", (7, 0))
LOGGED_IN = Reply(503, "Authenticated already", (5, 1))
UNKNOWN_MECHANISM = Reply(504, "Unrecognized authentication mechanism", (5, 4))
LOGIN_FAILED = Reply(535, "Authentication credentials invalid", (7, 8))
LOGIN_NEEDS_TLS = Reply(538, "Encryption required for this mechanism", (7, 11))
LOGIN_UNCHECKED = Reply(454, "Authentication is not possible now, try again later", (7, 0))

LHLO_FIRST = Reply(503, "LHLO first", (5, 1))
EHLO_FIRST = Reply(503, "EHLO first", (5, 1))
MAIL_FIRST = Reply(503, "MAIL first", (5, 1))
NESTED_MAIL = Reply(503, "A transaction is open already; RSET ends it", (5, 1))
IN_TRANSACTION = Reply(503, "Not within a transaction", (5, 1))
NO_RECIPIENTS = Reply(503, "No valid recipients", (5, 1))
BAD_SEQUENCE = Reply(503, "Bad sequence of commands", (5, 1))
CHUNKS_BEGUN = Reply(503, "The text is coming by BDAT; RSET ends it", (5, 1))
CHUNK_REFUSED = Reply(503, "A BDAT of this transaction was refused; RSET ends it", (5, 1))
NEEDS_BDAT = Reply(503, "Binary content needs BDAT in place of DATA", (5, 1))
TOO_MANY_RECIPIENTS = Reply(452, "Too many recipients", (5, 3))
TOO_EARLY = Reply(554, "Something was sent before it could be answered, closing connection", (5, 0))
TLS_REQUIRED = Reply(530, "Encryption required: STARTTLS first", (7, 0))
LOGIN_REQUIRED = Reply(530, "Authentication required", (7, 0))
NO_RELAYING = Reply(554, "Relaying denied: log in, or send from a network of ours", (7, 1))
TOO_LARGE = Reply(552, "Message larger than the limit", (3, 4))
# RFC 3463 §3.7: the recipient's side does not support the media.
BINARY_NOT_STORED = Reply(554, "Binary content is not kept unchanged here; send it encoded", (6, 1))

# ── recipients ───────────────────────────────────────────────────────────────────────────────────

DELIVERED = Reply(250, "Delivered", (0, 0))
NO_SUCH_USER = Reply(550, "No such user", (1, 1))
BAD_MAILBOX = Reply(553, "This address cannot be a mailbox here", (1, 3))
INTERNAL_ERROR = Reply(451, "Internal error, try again later", (3, 0))
CANNOT_LOOK_UP = Reply(451, "User look-up failed, try again later", (3, 0))
# RFC 7293 §14.3
OWNER_CHANGED = Reply(550, "This mailbox has belonged to somebody else since then", (7, 17))
DOMAIN_OWNER_CHANGED = Reply(550, "This domain has belonged to somebody else since then", (7, 18))
# RFC 2852 §4.1.4
TOO_LATE = Reply(550, "Not delivered within the time that MAIL said", (4, 7))
OUT_OF_TIME = Reply(451, "Delivery took too long, try again later", (4, 7))
NO_SPACE = Reply(452, "No room for mail, try again later", (3, 1))
MAILBOX_FULL = Reply(452, "Mailbox full", (2, 2))
# The same, where the operator wants the message returned at once.
MAILBOX_FULL_FOR_GOOD = Reply(552, "Mailbox full", (2, 2))
MAILBOX_UNAVAILABLE = Reply(451, "Mailbox unavailable, try again later", (2, 0))
CANNOT_STORE = Reply(451, "Mail cannot be stored now, try again later", (3, 0))
STORE_UNREACHABLE = Reply(451, "The mail store does not answer, try again later", (4, 1))


def chunk_received(octets: int) -> Reply:
    """
    The answer to a BDAT that is not the last (RFC 3030 §2).
    """
    return Reply(250, f"{octets} octets received", (0, 0))


# RFC 8689 §4.2.1
NEEDS_TLS = Reply(550, "This message must be passed on over TLS, which is not set up", (7, 10))
# RFC 8689 §8: the next server does not promise to do so itself.
TLS_SUPPORT_REQUIRED = Reply(550, "REQUIRETLS support required", (7, 30))
LOOP = Reply(554, "This message has come through too many servers, it is in a loop", (4, 6))


def queued(transaction_id: str, _address: str = "", codes: tuple[ResponseCode, ...] = ()) -> Reply:
    """
    The 250 of a relay: it has the message on disk, and answers for it.
    """
    return Reply(250, f"{transaction_id} Queued", (0, 0), codes)


def delivered(transaction_id: str, address: str, codes: tuple[ResponseCode, ...] = ()) -> Reply:
    """
    The 250 for one recipient; *transaction_id* stands in Received and in the log too.  *codes* are
    what its backend has to tell.

    An *address* that a reply must not carry (RFC 6531 §3.5 keeps UTF-8 out) is left out.
    """
    text = f"<{address}> {transaction_id} Delivered"
    if not (text.isascii() and text.isprintable() and len(text) <= MAX_TEXT):
        return Reply(250, f"{transaction_id} Delivered", (0, 0), codes)
    # What Reply(250, text, (0, 0), codes) is, in half of the time: there is one for every delivery.
    reply = Reply.__new__(Reply)
    _set(reply, "code", 250)
    _set(reply, "text", text)
    _set(reply, "status", (0, 0))
    _set(reply, "codes", codes)
    _set(reply, "wire", f"250 2.0.0 {text}\r\n".encode("ascii"))
    return reply
