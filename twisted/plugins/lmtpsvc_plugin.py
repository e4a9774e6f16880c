"""
Names, and nothing else: the ``twistd lmtp`` command and the plugins that come with it.

`twistd` imports this file whatever it is asked, so that nothing imported here may install a
reactor.
"""

from twisted.application.service import ServiceMaker

from lmtpsvc.auth.plugins import ProofFactory, ScramFactory
from lmtpsvc.backends.forward_factory import ForwardFactory
from lmtpsvc.backends.maildir import MaildirFactory
from lmtpsvc.backends.mbox import MboxFactory
from lmtpsvc.backends.pipe import PipeFactory
from lmtpsvc.backends.sql.factory import SQLFactory
from lmtpsvc.directory.anyone import AnyFactory
from lmtpsvc.directory.file import FileFactory
from lmtpsvc.directory.passwd import PasswdFactory
from lmtpsvc.directory.sql import SqlUsersFactory

lmtp = ServiceMaker("lmtpsvc", "lmtpsvc.tap", "An LMTP mail delivery service (RFC 2033).", "lmtp")
relay = ServiceMaker(
    "lmtpsvc relay", "lmtpsvc.relay_tap", "An SMTP relay with a durable queue.", "lmtp-relay"
)

forward = ForwardFactory()
maildir = MaildirFactory()
mbox = MboxFactory()
pipe = PipeFactory()
sql = SQLFactory()

any_users = AnyFactory()
file_users = FileFactory()
passwd_users = PasswdFactory()
sql_users = SqlUsersFactory()

scram_checker = ScramFactory()
proof_checker = ProofFactory()
