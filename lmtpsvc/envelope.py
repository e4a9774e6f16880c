"""
Who sends what to whom: the values that travel through every layer.

All are frozen and compare by value.  Text is ``str``: ASCII, or UTF-8 decoded where the client
asked for SMTPUTF8 (RFC 6531).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import field, frozen

_dot_string = re.compile(
    r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]+"
    r"(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]+)*\Z"
).match

NO_PARAMETERS: Final[Mapping[str, Any]] = MappingProxyType({})


@frozen
class Address:
    """
    A mailbox as RFC 5321 §4.1.2 names it: ``local@domain``.

    *local* is the meaning of the local part, quotes and backslashes undone (``"a b"@x`` has the
    local part ``a b``), its case kept (RFC 5321 §2.4).  *domain* is in lower case; an address
    literal keeps its brackets; it is empty for the bare ``<Postmaster>`` only.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        """
        The address as it may stand between ``<`` and ``>``, quoted where it must be.
        """
        local = self.local
        if _dot_string(local) is None:
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local


@frozen
class Sender:
    """
    What MAIL said (RFC 5321 §4.1.1.2).

    *address* is None for the null reverse-path ``<>``.  *parameters* has the ESMTP parameters by
    keyword, in upper case, each as its extension reads it: ``SIZE`` an int, ``BODY`` a str,
    ``SMTPUTF8`` True.
    """

    address: Address | None
    parameters: Mapping[str, Any] = field(default=NO_PARAMETERS, hash=False)

    def __str__(self) -> str:
        return "" if self.address is None else str(self.address)

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


@frozen
class Recipient:
    """
    What one RCPT said (RFC 5321 §4.1.1.3).  *parameters* as in Sender.
    """

    address: Address
    parameters: Mapping[str, Any] = field(default=NO_PARAMETERS, hash=False)

    def __str__(self) -> str:
        return str(self.address)


@frozen
class Mailbox:
    """
    A place where mail is to go: what a recipient's address means here.

    *user* and *domain* say whose it is; *detail* is what stood behind the recipient delimiter
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
    Who is connected: *host* is an IP address, or ``"local"`` on a UNIX socket, *port* a number if it
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


@frozen
class Envelope:
    """
    One mail transaction: sender, accepted recipients in RCPT order, and the client.
    """

    sender: Sender
    recipients: tuple[Recipient, ...]
    client: Client
