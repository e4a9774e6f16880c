"""
An SMTP relay with a queue, and the LMTP service behind it, in one process: ``twistd -ny relay.tac``.
"""

from twisted.application.service import Application

from lmtpsvc import relay_tap, tap

SOCKET = "/run/lmtpsvc/lmtp.sock"

store = tap.Options()
store.parseOptions(
    [
        *("--listen", f"unix:{SOCKET}:mode=600"),
        *("--backend", "maildir:/srv/mail/{domain}/{user}"),
        *("--users", "file:/etc/lmtpsvc/users"),
    ]
)
relay = relay_tap.Options()
relay.parseOptions(
    [
        *("--listen", "tcp:8025:interface=127.0.0.1"),
        *("--domain", "example.org", "--users", "file:/etc/lmtpsvc/users"),
        *("--local", f"lmtp:unix:{SOCKET}"),
        *("--queue", "sqlite:////var/spool/lmtpsvc/queue.db"),
    ]
)

application = Application("mail")
# They stop together: what the relay has not passed on by then waits in its queue.
tap.makeService(store).setServiceParent(application)
relay_tap.makeService(relay).setServiceParent(application)
