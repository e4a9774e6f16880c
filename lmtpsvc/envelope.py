"""
Who sends what to whom: the values that travel through every layer.

All are frozen and compare by value.  Text is ``str``: ASCII, or UTF-8 decoded where the client
asked for SMTPUTF8 (RFC 6531).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from attrs import field, fields, frozen

# What is not in atext: a class that goes up to U+10FFFF instead is slow to compile.
_atext = r'[^\x00- "(),.:;<>@\[\\\]\x7f]'
_dot_string = re.compile(rf"{_atext}+(?:\.{_atext}+)*\Z").match

NO_PARAMETERS: Final[Mapping[str, Any]] = MappingProxyType({})

#: The host of a client whose proxy does not know it.
UNKNOWN_HOST: Final = "unknown"


@frozen(cache_hash=True)
class Address:
    """
    A mailbox as RFC 5321 §4.1.2 names it: ``local@domain``.

    *local* is the meaning of the local part, quotes and backslashes undone (``"a b"@x`` has the
    local part ``a b``), its case kept (RFC 5321 §2.4).  *domain* is in lower case; an address
    literal keeps its brackets; it is empty for the bare ``<Postmaster>`` only.
    """

    local: str
    domain: str
    #: The address as it may stand between ``<`` and ``>``, quoted where it must be: made once, as it is
    #: written into headers, replies and the log.
    text: str = field(init=False, eq=False, repr=False)

    @text.default
    def _its_text(self) -> str:
        text = self.local
        if _dot_string(text) is None:
            text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{text}@{self.domain}" if self.domain else text

    def __str__(self) -> str:
        """
        The `text`.
        """
        return self.text


@frozen
class OriginalRecipient:
    """
    Who the sender wrote to, before anybody on the way resolved an alias (RFC 3461 §4.2).

    *type* says what kind of address it is, as the client wrote it: ``rfc822``; ``utf-8`` if it may
    have characters that are not ASCII (RFC 6533 §3); anything else came from elsewhere, and `kind`
    is the same in lower case.  *address* is printable, and otherwise whatever it is: it need not be
    well formed.  *came_as_utf8* tells how the client wrote it.
    """

    type: str
    address: str
    came_as_utf8: bool = field(default=False, eq=False, repr=False)

    def __str__(self) -> str:
        return f"{self.type};{self.address}"

    @property
    def kind(self) -> str:
        """
        The *type*, by which types are told apart: case does not matter.
        """
        return self.type.lower()


@frozen
class DeliverBy:
    """
    Until when a message has to be delivered (RFC 2852): *seconds* from MAIL on, and what is to
    become of it then.  It is returned to its sender, or else the sender is told of the delay;
    *is_traced* asks for a report from each relay on the way.
    """

    seconds: int
    is_returned: bool
    is_traced: bool = False


@frozen
class ValidSince:
    """
    The mailbox must have belonged to the same person ever since *moment* (RFC 7293), which has a
    time zone.  *otherwise* is for relays whose next server cannot tell: ``C`` is to go on, ``R`` to
    refuse, empty if nothing was said.
    """

    moment: datetime
    otherwise: str = ""


@frozen
class Sender:
    """
    What MAIL said (RFC 5321 §4.1.1.2).

    *address* is None for the null reverse-path ``<>``.  *parameters* has the ESMTP parameters by
    keyword, in upper case, each as its extension reads it: ``SIZE`` an int, ``BODY`` a str,
    ``SMTPUTF8`` True; those that have a property here as that says.
    """

    address: Address | None
    parameters: Mapping[str, Any] = field(default=NO_PARAMETERS, hash=False)

    def __str__(self) -> str:
        return "" if self.address is None else self.address.text

    @property
    def size(self) -> int | None:
        """
        Octets that the client declared (RFC 1870), if it did.
        """
        return self.parameters.get("SIZE")

    @property
    def is_binary(self) -> bool:
        """
        The text is octets without lines, none of which may change (RFC 3030 §3).
        """
        return self.parameters.get("BODY") == "BINARYMIME"

    @property
    def smtputf8(self) -> bool:
        """
        The client asked for SMTPUTF8 (RFC 6531 §3.4).
        """
        return "SMTPUTF8" in self.parameters

    @property
    def wants_codes(self) -> bool:
        """
        The client asked for response codes in replies (`lmtpsvc.response_codes`).
        """
        return "XRESPCODES" in self.parameters

    @property
    def envelope_id(self) -> str | None:
        """
        What the sender wants to recognize reports by (``ENVID``, RFC 3461 §4.4): printable ASCII.
        """
        return self.parameters.get("ENVID")

    @property
    def returned(self) -> str | None:
        """
        How much of the message a report of failure should have: ``FULL`` or ``HDRS`` (``RET``, RFC
        3461 §4.3).
        """
        return self.parameters.get("RET")

    @property
    def deliver_by(self) -> DeliverBy | None:
        """
        Until when it has to be delivered (``BY``, RFC 2852).
        """
        return self.parameters.get("BY")

    @property
    def priority(self) -> int:
        """
        From -9 to 9; 0 is the usual one (``MT-PRIORITY``, RFC 6710).
        """
        priority: int = self.parameters.get("MT-PRIORITY", 0)
        return priority

    @property
    def requires_tls(self) -> bool:
        """
        Whoever passes the message on may do so only over TLS (``REQUIRETLS``, RFC 8689).
        """
        return "REQUIRETLS" in self.parameters

    @property
    def wants_maildata(self) -> bool:
        """
        It asked where the copy lies, so as to share it with recipients elsewhere.
        """
        return self.parameters.get("XRESPCODES") == "MAILDATA"


@frozen
class Recipient:
    """
    What one RCPT said (RFC 5321 §4.1.1.3).  *parameters* as in Sender.
    """

    address: Address
    parameters: Mapping[str, Any] = field(default=NO_PARAMETERS, hash=False)

    def __str__(self) -> str:
        return str(self.address)

    @property
    def original(self) -> OriginalRecipient | None:
        """
        Who the sender wrote to, if the client said so (``ORCPT``, RFC 3461 §4.2).
        """
        return self.parameters.get("ORCPT")

    @property
    def notify(self) -> frozenset[str] | None:
        """
        When the sender wants to be told what became of the message: ``NEVER``, or some of
        ``SUCCESS``, ``FAILURE`` and ``DELAY`` (``NOTIFY``, RFC 3461 §4.1).
        """
        return self.parameters.get("NOTIFY")

    @property
    def valid_since(self) -> ValidSince | None:
        """
        Since when the mailbox must have been the same person's (``RRVS``, RFC 7293).
        """
        return self.parameters.get("RRVS")


@frozen(cache_hash=True)
class Mailbox:
    """
    A place where mail is to go: what a recipient's address means here.

    *user* and *domain* say whose it is, an internationalised domain as DNS has it
    (``xn--bcher-kva.example``), however the recipient was written; *detail* is what stood behind the recipient delimiter
    (``ann+lists``: user ``ann``, detail ``lists``), or empty.  *home*, *uid* and *gid* are there if
    the directory knows them.  *attributes* is what else the directory knows, by names that a
    backend documents; ``quota_octets`` and ``quota_messages`` are in `lmtpsvc.quota`, and
    ``backend`` is the name of the backend that the mailbox is in.
    """

    user: str
    domain: str
    detail: str = ""
    home: str | None = None
    uid: int | None = None
    gid: int | None = None
    attributes: Mapping[str, str] = field(default=NO_PARAMETERS, hash=False)

    def __str__(self) -> str:
        user = f"{self.user}+{self.detail}" if self.detail else self.user
        return f"{user}@{self.domain}" if self.domain else user

    def told(self, name: str, value: str) -> Mailbox:
        """
        The same mailbox, of which the attribute *name* is known too: what `attrs.evolve` would make,
        in a fifth of the time.
        """
        *facts, attributes = _of_mailbox(self)
        facts.append({**attributes, name: value})
        return Mailbox(*facts)


@frozen
class Origin:
    """
    Where an MTA in front of us has a message from, as far as it has told (XFORWARD): for logs, and
    nothing else.

    *dns_name*, *host* and *port* are those of its client, *name* what that has called itself, and
    *protocol* what was spoken; *ident* is its own name for the message, the queue id; *source* is
    ``LOCAL`` or ``REMOTE``.  Texts are printable ASCII without spaces, or empty.
    """

    dns_name: str = ""
    host: str = ""
    port: int | None = None
    protocol: str = ""
    name: str = ""
    ident: str = ""
    source: str = ""


@frozen
class Client:
    """
    Who is connected: *host* is an IP address, ``"local"`` on a UNIX socket, or ``"unknown"``, *port* a number if it
    is known; *name* is what it said with LHLO; *tls* tells whether the connection is encrypted;
    *protocol* is ``LMTP``, or what else the message came by.

    *login* is who has authenticated, and *session* what a proxy or an MTA in front calls this
    session in its own log; both may be empty.  *cipher* is the version of TLS and its
    cipher, empty if the connection is not encrypted.

    A proxy that is trusted may say all of this of its own client (XCLIENT), and more: *dns_name*,
    the name of *host*; *ttl*, how many proxies there may still be, none if it is 0; and
    *patience_seconds*, how long it waits for the replies; *fields*, what else it knows.
    """

    host: str
    name: str = ""
    tls: bool = False
    protocol: str = "LMTP"
    port: int | None = None
    login: str = ""
    session: str = ""
    cipher: str = ""
    dns_name: str = ""
    ttl: int | None = None
    patience_seconds: float | None = None
    fields: Mapping[str, str] = field(default=NO_PARAMETERS, hash=False)
    origin: Origin | None = None

    def named(self, name: str) -> Client:
        """
        The same client with another *name*: what `attrs.evolve` would make, in a fifth of the time.
        """
        host, _, *others = _of_client(self)
        return Client(host, name, *others)


# Whatever fields there will be, in the order in which they are given.
_of_mailbox = attrgetter(*(each.name for each in fields(Mailbox)))
_of_client = attrgetter(*(each.name for each in fields(Client)))


@frozen
class Envelope:
    """
    One mail transaction: sender, accepted recipients in RCPT order, and the client.
    """

    sender: Sender
    recipients: tuple[Recipient, ...]
    client: Client
