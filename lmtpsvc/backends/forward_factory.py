"""
The plugin ``forward``.  The client, more than a megabyte, is imported when it is asked for.
"""

from __future__ import annotations

from typing import Final

from twisted.plugin import IPlugin
from zope.interface import implementer

from ..interfaces import IBackend, IBackendFactory

SYNOPSIS: Final = (
    "forward:DESTINATION[:protocol=lmtp|smtp][:tls=none|may|encrypt|must][:name=HOST][:ca=FILE]"
    "[:certificate=FILE][:login=USER][:password_file=FILE][:connections=10][:retry=10s]"
    "[:referrals=yes|no][:xclient=yes|no][:maildata=no|yes]"
    "[:binary=no|yes]"
)


@implementer(IPlugin, IBackendFactory)
class ForwardFactory:
    """
    Makes a `lmtpsvc.backends.forward.ForwardBackend`.
    """

    name = "forward"
    synopsis = SYNOPSIS
    help = """\
Gives mail to another LMTP or SMTP server; each recipient's reply is that server's.

DESTINATION  HOST:PORT, unix:PATH, or any client endpoint of Twisted's; {node} is the host that the
          directory says the mailbox is on (node=), and {domain} that of the address: {node}:24.
protocol  of that server.
tls       none; may (if it is offered), encrypt (or nothing), must (and its certificate is verified, in
          the name of the host or of name, by the system's authorities or those in ca).
certificate  a PEM file with our own certificate and its key.
login     and password_file, with the password on its first line, to authenticate.
connections  to one destination, at most.
retry     how often a server is tried that could not be reached; mail for it is refused meanwhile (451).
referrals go where a node says that the mailbox is: [REFERRAL lmtp://HOST/], or Dovecot's way.
xclient   tell a server that lets us who our client is, and how long it waits.
binary    all these servers take BINARYMIME, so that clients may send it.
maildata  ask the first node where its copy lies, and tell the others, which may link it.
"""

    def build(self, reactor: object, *words: str, **options: str) -> IBackend:
        """
        Make the backend; nobody is connected to yet.
        """
        from .forward import ForwardBackend  # noqa: PLC0415 - see above
        from .forward_settings import from_words  # noqa: PLC0415

        return ForwardBackend(from_words(reactor, words, options), reactor)
