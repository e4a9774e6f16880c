"""
Sends messages from a program of asyncio: ``python send_from_asyncio.py 127.0.0.1:8024 ann@example.org``.

Twisted runs on the loop of asyncio, so that tasks may use the client like anything else.
"""

import asyncio
import sys

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
asyncioreactor.install(loop)

from lmtpsvc.client import Client  # noqa: E402 - the reactor must be installed before


async def send(client, recipient):
    message = f"Subject: Hello\r\n\r\nHello, {recipient}.\r\n".encode()
    [outcome] = await client.send("me@example.net", [recipient], message)
    return f"{recipient} {outcome.reply}"


async def main(reactor, to, *recipients):
    client = Client(reactor, to)
    # All at the same time, over as many connections as the client has.
    for line in await asyncio.gather(*(send(client, each) for each in recipients)):
        print(line)
    await client.close().asFuture(loop)


if __name__ == "__main__":
    # Ends when the task does.
    react(lambda *words: Deferred.fromFuture(loop.create_task(main(*words))), sys.argv[1:])
