"""
An LMTP service beside an HTTP service, in one process: ``twistd -ny with_http.tac``.
"""

from pathlib import Path

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site

from lmtpsvc.tap import Options, makeService

STORE = "/srv/mail"


class Unread(Resource):
    """
    How many messages nobody has looked at: ``curl http://127.0.0.1:8080/``.
    """

    isLeaf = True

    def render_GET(self, request):
        count = sum(1 for _ in Path(STORE).glob("*/*/new/*"))
        return b"%d unread\n" % count


# The words of the command line; a mistake in them is one line, and twistd does not start.
options = Options()
options.parseOptions(
    [
        *("--listen", "tcp:8024:interface=127.0.0.1"),
        *("--backend", f"maildir:{STORE}/{{domain}}/{{user}}"),
        *("--users", "any"),
    ]
)

application = Application("mail")
makeService(options).setServiceParent(application)
StreamServerEndpointService(
    serverFromString(reactor, "tcp:8080:interface=127.0.0.1"), Site(Unread())
).setServiceParent(application)
