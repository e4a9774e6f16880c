"""
Connection: what is true of the connection that a conversation runs over.

Who the client is said to be, by a proxy in front for example, is `lmtpsvc.envelope.Client`, and may
change; this is what we know ourselves.
"""

from __future__ import annotations

from attrs import define, frozen

from ..envelope import Client


@frozen
class Terms:
    """
    What a listener asks of those who connect to it.
    """

    #: Nothing but a greeting before the connection is encrypted (RFC 3207 §4).
    tls_required: bool = False
    #: No mail before somebody has logged in (RFC 4954 §4).
    login_required: bool = False
    #: A proxy is in front, and says first who is connected to it.
    proxied: bool = False


NO_TERMS = Terms()


@define
class Connection:
    """
    *host* is an IP address, ``local`` for a UNIX socket, or ``unknown``, and *port* that of the
    other side.  Behind a proxy that says so (PROXY), both are those of its client, as is all else:
    it is not the proxy that we talk to.

    Nobody changes it.  It is not frozen because that would take three times as long to make, and
    there is one for each connection.
    """

    host: str = "local"
    port: int | None = None
    #: It is encrypted.
    tls: bool = False
    #: STARTTLS is possible.
    offers_tls: bool = False
    #: How, once the handshake is done: ``TLSv1.3 TLS_AES_256_GCM_SHA384``.
    cipher: str = ""
    #: The name in the certificate of the other side, if it has shown one that was verified.
    certificate: str | None = None
    #: The user that runs the process at the other end of a UNIX socket, if the kernel says it.
    uid: int | None = None
    #: The operator lets this host say who the client is, and more.
    is_trusted: bool = False
    terms: Terms = NO_TERMS
    #: What a proxy in front calls it, if it says so.
    session: str = ""

    @property
    def is_private(self) -> bool:
        """
        Nobody on the way can read along: a password may be sent.
        """
        return self.tls or self.host == "local"

    @property
    def client(self) -> Client:
        """
        Who the client is as long as nobody says otherwise.
        """
        return self.named("")

    def named(self, name: str) -> Client:
        """
        The same, if it has said that this is its *name*.
        """
        return Client(
            self.host,
            name,
            tls=self.tls,
            port=self.port,
            cipher=self.cipher,
            session=self.session,
        )


#: A UNIX socket, of which nothing else is known.
LOCAL = Connection()
