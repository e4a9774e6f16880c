"""
Twisted's own SMTP server in front of an LMTP service: ``twistd -ny smtp_front.tac``.

SMTP has one reply behind the text, whatever has become of each recipient; docs/compose.md says what
that costs.
"""

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.mail import smtp
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from zope.interface import implementer

from lmtpsvc.client import Client

LMTP = "tcp:127.0.0.1:8024"
SMTP = "tcp:8025:interface=127.0.0.1"


@implementer(IMessageDelivery)
class Delivery:
    """
    The transactions of one connection.
    """

    def __init__(self, client):
        self.client = client

    def validateFrom(self, helo, origin):
        self.sender, self.recipients, self.lines = str(origin), [], []
        return origin

    def validateTo(self, user):
        # Whether somebody of that name lives there is known behind the text only.
        self.recipients.append(str(user.dest))
        part = Part(self, user.protocol, is_first=len(self.recipients) == 1)
        return lambda: part

    def receivedHeader(self, helo, origin, recipients):
        return b""


@implementer(IMessageSMTP)
class Part:
    """
    What Twisted's server takes for the message of one recipient; the first stands for all of them.
    """

    def __init__(self, transaction, protocol, is_first):
        self.transaction, self.protocol, self.is_first = transaction, protocol, is_first

    def lineReceived(self, line):
        if self.is_first:
            self.transaction.lines.append(line + b"\r\n")

    def eomReceived(self):
        if self.is_first:
            it = self.transaction
            delivery = it.client.send(it.sender, it.recipients, b"".join(it.lines))
            delivery.as_deferred().addCallback(self.answer)
        # To a Deferred that fails, Twisted's server says 550, even if the mail should be tried again:
        # it gets one that never fires, and the reply is said here.
        return Deferred()

    def answer(self, outcomes):
        """
        One reply for all: "later" if anybody should be tried again, then "no", then "yes".
        """
        reply = max(
            (each.reply for each in outcomes), key=lambda reply: {2: 0, 5: 1, 4: 2}[reply.code // 100]
        )
        self.protocol.sendCode(reply.code, str(reply)[4:].encode())

    def connectionLost(self):
        pass


class Front(smtp.SMTPFactory):
    protocol = smtp.ESMTP

    def __init__(self, client):
        super().__init__()
        self.client = client

    def buildProtocol(self, address):
        connection = super().buildProtocol(address)
        connection.delivery = Delivery(self.client)
        return connection


application = Application("front")
StreamServerEndpointService(
    serverFromString(reactor, SMTP), Front(Client(reactor, LMTP))
).setServiceParent(application)
