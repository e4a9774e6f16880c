"""
Sends a message from a plain script: ``python send_from_script.py 127.0.0.1:8024 ann@example.org ...``.
"""

import sys

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from lmtpsvc.client import Client

MESSAGE = b"Subject: Hello\r\n\r\nHello from a script.\r\n"


async def send(reactor, to, *recipients):
    client = Client(reactor, to)
    failed = 0
    async for recipient, outcome in client.send("me@example.net", recipients, MESSAGE):
        print(recipient, outcome.reply)
        failed += not outcome.is_success
    await client.close()
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    react(lambda reactor, *words: ensureDeferred(send(reactor, *words)), sys.argv[1:])
