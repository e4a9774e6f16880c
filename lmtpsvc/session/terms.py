"""
What a client says on a connection, and in a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, Literal

from attrs import field, frozen

from ..envelope import NO_PARAMETERS, Recipient, Sender
from ..replies import Reply
from ..wire.command_lines import hello_line
from .sasl_client import Login

#: What the text of a message is made of (RFC 6152, RFC 3030).
Body = Literal["7BIT", "8BITMIME", "BINARYMIME"]

NO_ATTRIBUTES: Final[Mapping[str, str | None]] = NO_PARAMETERS


class Dialect(Enum):
    """
    The two that differ in their greeting, and in what is answered to the end of the text.
    """

    LMTP = "LMTP"
    SMTP = "SMTP"


class TLS(Enum):
    """
    When to encrypt with STARTTLS (RFC 3207).
    """

    #: Never.
    NONE = "none"
    #: If it is offered, whoever the server is: better than nothing (RFC 7435).
    MAY = "may"
    #: Always, whoever the server is.
    ENCRYPT = "encrypt"
    #: Always, and the certificate must be in the name of the server.
    MUST = "must"


@frozen
class Terms:
    """
    How a client introduces itself on a connection.

    *hostname* is what it says with LHLO or EHLO.  *xclient* are the attributes of XCLIENT, by name
    in upper case (``ADDR``, ``NAME``, ``LOGIN``, ...), each a text, or None if it is not known; those
    that the server does not list are left out.  *pipelining* and *chunking* False do without an
    extension although it is offered.  *tls_failure* tells of TLS that was tried before, where it may be
    done without: a server that does not (530) says nothing about the mail.

    Raises:
        ValueError: *hostname* is neither a domain nor an address literal.
    """

    hostname: str
    dialect: Dialect = Dialect.LMTP
    tls: TLS = TLS.NONE
    login: Login | None = None
    xclient: Mapping[str, str | None] = field(default=NO_ATTRIBUTES)
    pipelining: bool = True
    chunking: bool = True
    tls_failure: Reply | None = None

    def __attrs_post_init__(self) -> None:
        hello_line("LHLO", self.hostname)


@frozen
class Mailing:
    """
    One transaction: who sends to whom, and what.

    The parameters of *sender* may have ``ENVID`` (a text, not xtext), ``RET`` and ``SMTPUTF8``; those
    of a recipient ``NOTIFY`` (a text or several) and ``ORCPT`` (``"rfc822;ann@example.org"``, the
    address not in xtext).  They are said where the server has announced DSN (RFC 3461) and left out
    where it has not.  So it is with ``XRESPCODES`` and ``MAILDATA`` (`lmtpsvc.response_codes`), with
    ``MT-PRIORITY`` (a number, RFC 6710), and with ``BY`` (a `lmtpsvc.envelope.DeliverBy`, RFC 2852), except that
    a message that is to be returned in time goes to no SMTP server without DELIVERBY.  One with
    ``REQUIRETLS`` (True, RFC 8689) goes only to a server whose certificate was looked at, and that
    announces REQUIRETLS itself, or over a UNIX socket.  *body* is what the text is made of, *size* its octets with CRLF at the end of
    lines, None if that is not known.  *xforward* are the attributes of XFORWARD, and *xclient* those
    of XCLIENT instead of the ones in `Terms`.  *is_ascii* is asked where the server does not take
    8BITMIME, and *body* says so only because nobody has looked.
    """

    sender: Sender
    recipients: tuple[Recipient, ...]
    body: Body = "8BITMIME"
    size: int | None = None
    xforward: Mapping[str, str | None] = field(default=NO_ATTRIBUTES)
    xclient: Mapping[str, str | None] | None = None
    is_ascii: Callable[[], bool] | None = field(default=None, eq=False)

    def needs_utf8(self) -> bool:
        """
        An address is not ASCII, or the sender asked for SMTPUTF8 (RFC 6531 §3.4).
        """
        addresses = [recipient.address for recipient in self.recipients]
        if self.sender.address is not None:
            addresses.append(self.sender.address)
        return self.sender.smtputf8 or not all(
            address.local.isascii() and address.domain.isascii() for address in addresses
        )
