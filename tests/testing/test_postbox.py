"""
A mail server in the test's own process: what arrives, what it answers, and how it ends.
"""

from __future__ import annotations

import os
import re
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.threads import deferToThread

from lmtpsvc.client import Client, Dialect, address
from lmtpsvc.envelope import Recipient, Sender
from lmtpsvc.limits import Limits
from lmtpsvc.testing import BlockingPostbox, Postbox

# Sockets, as an application under test has them; nobody else is needed.
pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
TEXT = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n.body\r\n"

in_reactor: Callable[[Callable[..., Any]], Callable[..., Any]] = pytest_twisted.ensureDeferred


@pytest.fixture
def postbox() -> Iterator[Postbox]:
    postbox = Postbox().start()
    yield postbox
    pytest_twisted.blockon(postbox.stop())


@pytest.fixture
def client(postbox: Postbox) -> Iterator[Client]:
    client = Client(reactor, postbox.destination)
    yield client
    pytest_twisted.blockon(client.close())


@pytest.fixture
def blocking() -> Iterator[BlockingPostbox]:
    with BlockingPostbox() as postbox:
        yield postbox


class TestArrival:
    @in_reactor
    async def test_all_of_it(self, postbox: Postbox, client: Client) -> None:
        """
        Envelope with its parameters, every octet of the text, and the headers decoded.
        """
        ann = Recipient(address("Ann+x@example.org"), {"NOTIFY": "NEVER"})
        sender = Sender(address("me@example.net"), {"ENVID": "7"})
        client.send(sender, [ann, "bob@example.org"], TEXT)
        mail = await postbox.next()

        assert TEXT == mail.text
        assert "Grüße" == mail.parsed["Subject"]
        assert "me@example.net" == mail.sender
        assert ["Ann+x@example.org", "bob@example.org"] == mail.recipients
        assert "7" == mail.envelope.sender.envelope_id
        assert frozenset({"NEVER"}) == mail.envelope.recipients[0].notify
        assert [mail] == postbox.messages

    @in_reactor
    async def test_in_order(self, postbox: Postbox, client: Client) -> None:
        """
        Each message is given once, whether somebody waits for it or not; and all are kept.
        """
        waiting = postbox.next()
        for number in range(3):
            await client.send(None, ["ann@example.org"], b"%d\r\n" % number)

        assert b"0\r\n" == (await waiting).text
        assert [b"1\r\n", b"2\r\n"] == [(await postbox.next()).text for _ in range(2)]
        assert 3 == len(postbox.messages)
        postbox.clear()
        assert [] == postbox.messages

    @in_reactor
    async def test_large(self, postbox: Postbox, client: Client) -> None:
        """
        Neither a thread nor a file is needed, however large it is.
        """
        text = b"x" * 100 + b"\r\n"
        await client.send("me@example.net", ["ann@example.org"], text * 20_000)

        assert text * 20_000 == (await postbox.next()).text

    @in_reactor
    async def test_nothing(self, postbox: Postbox) -> None:
        """
        A test that waits in vain is told so.
        """
        with pytest.raises(TimeoutError, match=r"no mail has come in 0\.01 seconds"):
            await postbox.next(0.01)

    @in_reactor
    async def test_cancelled(self, postbox: Postbox, client: Client) -> None:
        """
        Who does not wait any longer does not take it from others.
        """
        given_up = postbox.next()
        given_up.cancel()
        with pytest.raises(CancelledError):
            await given_up
        await client.send(None, ["ann@example.org"], TEXT)

        assert TEXT == (await postbox.next()).text


class TestAnswers:
    @in_reactor
    async def test_each(self, postbox: Postbox, client: Client) -> None:
        """
        One is refused at RCPT, one behind the text, and one is well.
        """
        postbox.refuse("Ann@example.org")
        postbox.fail("bob@example.org", "452 4.2.2 Full")
        told = await client.send(
            None, ["ann@example.org", "bob@example.org", "cat@example.org"], TEXT
        )

        said = [(each.stage.value, str(each.reply)[:9]) for each in told]
        assert [("RCPT", "550 5.1.1"), ("end of text", "452 4.2.2")] == said[:2]
        assert told[2].is_success
        assert ["bob@example.org", "cat@example.org"] == (await postbox.next()).recipients

    @in_reactor
    async def test_everybody_but_one(self, postbox: Postbox, client: Client) -> None:
        """
        A rule for all, and one of his own; taken back, it is as before.
        """
        postbox.fail()
        postbox.fail("bob@example.org", "550 No")
        told = await client.send(None, ["ann@example.org", "bob@example.org"], TEXT)
        assert [451, 550] == [each.reply.code for each in told]

        postbox.accept()
        postbox.accept("bob@example.org")
        told = await client.send(None, ["ann@example.org", "bob@example.org"], TEXT)
        assert [250, 250] == [each.reply.code for each in told]

    @in_reactor
    async def test_once(self, postbox: Postbox, client: Client) -> None:
        """
        What an application that tries again needs.
        """
        postbox.refuse("ann@example.org", "451 4.3.0 Later", times=1)
        postbox.fail("ann@example.org", times=1)
        codes = [(await client.send(None, ["ann@example.org"], TEXT))[0].reply.code for _ in "123"]

        assert [451, 451, 250] == codes

    @in_reactor
    async def test_late(self, postbox: Postbox, client: Client) -> None:
        """
        The message has arrived, Ann has her answer, and Bob's comes when the test says so.
        """
        hold = postbox.hold("bob@example.org")
        ann, bob = client.send(None, ["ann@example.org", "bob@example.org"], TEXT).outcomes
        await postbox.next()
        assert (await ann).is_success
        assert not bob.called

        hold.release("550 5.7.1 Not you")
        assert "550 5.7.1 Not you" == str((await bob).reply)
        again = await client.send(None, ["bob@example.org"], TEXT)
        assert again[0].is_permanent

    @pytest.mark.parametrize("reply", ["250 OK", "no", "550 4.1.1 Both", "354 Go on"])
    def test_no_refusal(self, postbox: Postbox, reply: str) -> None:
        """
        A mistake in a test is told where it is made.
        """
        with pytest.raises(ValueError, match="not a refusal"):
            postbox.refuse("ann@example.org", reply)

    def test_no_address(self, postbox: Postbox) -> None:
        """
        A rule for what is no address is a mistake.
        """
        with pytest.raises(ValueError, match="not an address"):
            postbox.fail("ann")

    @in_reactor
    async def test_limits(self) -> None:
        """
        A server that takes little.
        """
        async with Postbox(limits=Limits(message_size=100)) as postbox:
            client = Client(reactor, postbox.destination)
            [told] = await client.send(None, ["ann@example.org"], b"x" * 200)
            await client.close()

        assert 552 == told.reply.code


class TestPlaces:
    @in_reactor
    async def test_unix(self, tmp_path: Path) -> None:
        """
        A UNIX socket does as well.
        """
        async with Postbox(listen=f"unix:{tmp_path}/s") as postbox:
            assert (f"{tmp_path}/s", 0) == (postbox.host, postbox.port)
            client = Client(reactor, postbox.destination)
            [told] = await client.send(None, ["ann@example.org"], TEXT)
            await client.close()

        assert told.is_success

    @in_reactor
    async def test_smtp(self) -> None:
        """
        One reply for all, for an application that speaks SMTP.
        """
        async with Postbox(dialect=Dialect.SMTP) as postbox:
            postbox.fail()

            def send() -> None:
                with smtplib.SMTP(postbox.host, postbox.port) as smtp:
                    to = ["ann@example.org", "bob@example.org"]
                    smtp.sendmail("me@example.net", to, TEXT)

            with pytest.raises(smtplib.SMTPDataError):
                await deferToThread(send)
            assert 2 == len((await postbox.next()).recipients)

    @in_reactor
    async def test_impossible(self, postbox: Postbox, tmp_path: Path) -> None:
        """
        Where nobody can listen, it does not; and it starts but once.
        """
        with pytest.raises(FileNotFoundError):
            Postbox(listen=f"unix:{tmp_path}/nowhere/s").start()
        with pytest.raises(ValueError, match="nothing"):
            Postbox(listen="nothing:1").start()
        with pytest.raises(RuntimeError, match="started already"):
            postbox.start()

    def test_not_started(self) -> None:
        """
        Where it listens is not known before it is started.
        """
        with pytest.raises(RuntimeError, match="not started"):
            _ = Postbox().port


class TestStopping:
    @in_reactor
    async def test_nobody_waits(self) -> None:
        """
        Who is held hears 451, and who waits for mail is told; then nobody listens.
        """
        postbox = Postbox().start()
        postbox.hold()
        client = Client(reactor, postbox.destination)
        delivery = client.send(None, ["ann@example.org"], TEXT)
        await postbox.next()
        waiting, port = postbox.next(), postbox.port
        await postbox.stop()

        assert 451 == (await delivery)[0].reply.code
        with pytest.raises(CancelledError):
            await waiting
        await client.close()
        with pytest.raises(ConnectionRefusedError):
            await deferToThread(socket.create_connection, ("127.0.0.1", port))

    @in_reactor
    async def test_never_started(self) -> None:
        """
        One that was never started can be stopped.
        """
        await Postbox().stop()


class TestBlocking:
    def test_smtplib(self, blocking: BlockingPostbox) -> None:
        """
        No reactor in sight: Python's own client, in the thread of the test.
        """
        blocking.refuse("bob@example.org")
        with smtplib.LMTP(blocking.host, blocking.port) as lmtp:
            refused = lmtp.sendmail("me@example.net", ["ann@example.org", "bob@example.org"], TEXT)

        assert {"bob@example.org": (550, b"5.1.1 No such user")} == refused
        assert TEXT == blocking.next().text
        assert 1 == len(blocking.messages)

    def test_late(self, blocking: BlockingPostbox) -> None:
        """
        The application waits in one thread while the test looks on in another.
        """
        hold = blocking.hold("ann@example.org")
        done = threading.Event()

        def send() -> None:
            with smtplib.LMTP(blocking.host, blocking.port) as lmtp:
                lmtp.sendmail("me@example.net", ["ann@example.org"], TEXT)
            done.set()

        thread = threading.Thread(target=send)
        thread.start()
        blocking.next()
        assert not done.is_set()
        hold.release()
        thread.join(30)
        assert done.is_set()

    def test_nothing(self, blocking: BlockingPostbox) -> None:
        """
        Where no message comes, the wait ends.
        """
        with pytest.raises(TimeoutError):
            blocking.next(0.01)

    def test_unix(self, tmp_path: Path) -> None:
        """
        It listens on a UNIX socket, too.
        """
        with BlockingPostbox(f"unix:{tmp_path}/s") as postbox:
            with smtplib.LMTP(postbox.host) as lmtp:
                lmtp.sendmail("me@example.net", ["ann@example.org"], TEXT)

            assert ["ann@example.org"] == postbox.next().recipients

    def test_two(self, blocking: BlockingPostbox) -> None:
        """
        They have nothing in common.
        """
        with BlockingPostbox() as other:
            assert other.port != blocking.port
            with smtplib.LMTP(other.host, other.port) as lmtp:
                lmtp.sendmail("me@example.net", ["ann@example.org"], TEXT)
            other.next()
        assert [] == blocking.messages


TRIAL = """
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from lmtpsvc.client import Client
from lmtpsvc.testing import Postbox

class Tests(TestCase):
    def setUp(self):
        self.postbox = Postbox().start()
        self.client = Client(reactor, self.postbox.destination)

    async def tearDown(self):
        await self.postbox.stop()
        await self.client.close()

    async def test_sent(self):
        self.client.send("me@example.net", ["ann@example.org"], b"Subject: hello\\r\\n\\r\\n")
        mail = await self.postbox.next()
        self.assertEqual("hello", mail.parsed["Subject"])

    async def test_held(self):
        self.postbox.hold()
        self.client.send("me@example.net", ["ann@example.org"], b"")
        await self.postbox.next()
"""

ASYNCIO = """
import asyncio, smtplib
from twisted.internet import asyncioreactor
loop = asyncio.new_event_loop()
asyncioreactor.install(loop)
from twisted.internet import reactor
from lmtpsvc.client import Client
from lmtpsvc.testing import Postbox

async def test():
    async with Postbox() as postbox:
        client = Client(reactor, postbox.destination)
        client.send("me@example.net", ["ann@example.org"], b"Subject: hello\\r\\n\\r\\n")
        print((await postbox.next()).parsed["Subject"])
        await client.close().asFuture(loop)

async def main():
    await test()
    reactor.stop()

reactor.callWhenRunning(lambda: kept.append(loop.create_task(main())))
kept = []
reactor.run()
kept[0].result()
"""


def run(directory: Path, *words: str) -> str:
    path = os.pathsep.join((str(directory), str(ROOT)))
    done = subprocess.run(
        [sys.executable, *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_trial(tmp_path: Path) -> None:
    """
    With trial, which looks whether the reactor is clean behind each test.
    """
    (tmp_path / "test_it.py").write_text(TRIAL)

    assert "PASSED (successes=2)" in run(tmp_path, "-m", "twisted.trial", "test_it")


def test_asyncio(tmp_path: Path) -> None:
    """
    In a task of asyncio, on Twisted's reactor for it.
    """
    assert "hello\n" == run(tmp_path, "-c", ASYNCIO)


INVOICES = """
from lmtpsvc.client import Client

async def send(reactor, to, recipients):
    client = Client(reactor, to)
    message = b"Subject: Your invoice\\r\\n\\r\\nIt is small.\\r\\n"
    delivery = client.send("me@example.net", recipients, message)
    failed = {str(to): str(out.reply) async for to, out in delivery if not out.is_success}
    await client.close()
    return failed

def send_invoices(reactor, to, recipients):
    from twisted.internet.defer import ensureDeferred
    return ensureDeferred(send(reactor, to, recipients))
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("twisted.trial", "test_invoices"), "PASSED (successes=2)"),
        (("pytest", "-q", "-W", "error", "test_newsletter.py"), "1 passed"),
    ],
    ids=["trial", "pytest"],
)
def test_the_page(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """
    What docs/testing.md shows is run as it stands there.
    """
    (tmp_path / "invoices.py").write_text(INVOICES)
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    for name, source in re.findall(r"^```python (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(source)

    assert said in run(tmp_path, "-m", *words)
