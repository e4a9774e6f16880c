"""
LMTP in, POP3 out, one process: ``twistd -ny pop3.tac``.
"""

from twisted.application.service import Application
from twisted.cred.checkers import FilePasswordDB
from twisted.internet import reactor

from lmtpsvc.pop3.passwords import scrypted
from lmtpsvc.pop3.service import POP3Service
from lmtpsvc.tap import Options, makeService

STORE = "sqlite:////srv/mail/mail.db"

options = Options()
options.parseOptions(
    ["--listen", "tcp:8024:interface=127.0.0.1", "--backend", f"sql:{STORE}", "--users", "any"]
)
passwords = FilePasswordDB("/srv/mail/passwords", hash=scrypted)

application = Application("mail")
makeService(options).setServiceParent(application)
POP3Service(reactor, "tcp:8110:interface=127.0.0.1", STORE, passwords).setServiceParent(application)
