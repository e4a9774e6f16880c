"""
Relays and the server behind them die at any moment: nothing is lost, and nobody has a message again
who was known to have it.

``LMTPSVC_KILLS`` says how often, 12 times if it is not set.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine, select

from lmtpsvc.backends.sql import versions
from lmtpsvc.backends.sql.engine import parse, writes
from lmtpsvc.client import address
from lmtpsvc.envelope import Recipient, Sender
from lmtpsvc.relay import ledger, tables
from lmtpsvc.relay.ledger import New

from ..forks import Fork, Forks, script
from .service import Service, wait_until

KILLS = int(os.environ.get("LMTPSVC_KILLS", "12"))
_PROGRAM = script(Path(__file__).with_name("relay.py"))

#: One has it at once, one is refused until late, one is not there, one hears of what is not there.
ANN, SLOW, NOBODY, ME = (f"{user}@example.org" for user in ("ann", "slow", "nobody", "me"))

_token = re.compile(rb"^X-Token: (\S+)\r?$", re.MULTILINE).search


class Mail:
    """
    What is in the queue, and what has arrived.
    """

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root = url, root
        self.engine: Engine = parse(url).engine()
        versions.upgrade(self.engine, tables.QUEUE)
        self.sent: list[str] = []
        self._read: dict[Path, tuple[str, bytes]] = {}

    def send(self) -> None:
        """
        One message, for three.
        """
        import io

        id = f"{len(self.sent):016x}"
        text = f"X-Token: {id}\r\nSubject: Hello\r\n\r\nHello, all.\r\n".encode()
        to = tuple(Recipient(address(each)) for each in (ANN, SLOW, NOBODY))
        with writes(self.engine.connect()) as connection, connection.begin():
            new = New(id, Sender(address(ME)), to, lambda: io.BytesIO(text))
            ledger.create(connection, new, time.time())
        self.sent.append(id)

    def known(self) -> set[tuple[str, str]]:
        """
        The messages and recipients of which the queue knows that they have arrived.
        """
        query = select(
            tables.recipient.c.message_id, tables.recipient.c.address, tables.recipient.c.state
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        still = {row.message_id for row in rows}
        known = {(row.message_id, row.address) for row in rows if row.state == "done"}
        return known | {(id, to) for id in self.sent if id not in still for to in (ANN, SLOW)}

    def left(self) -> int:
        """
        How many messages are in the queue.
        """
        with self.engine.connect() as connection:
            return len(connection.scalars(select(tables.message.c.id)).all())

    def arrived(self) -> Counter[tuple[str, str]]:
        """
        How often each has which message.
        """
        count: Counter[tuple[str, str]] = Counter()
        for user in ("ann", "slow"):
            for text in self.texts(user):
                match = _token(text)
                assert match is not None, text
                count[match[1].decode(), f"{user}@example.org"] += 1
        return count

    def texts(self, user: str) -> Iterator[bytes]:
        """
        All in one mailbox.
        """
        for path in (self.root / "example.org" / user / "new").glob("*"):
            yield path.read_bytes()


class Relays:
    """
    Processes that share the queue.
    """

    def __init__(self, forks: Forks, url: str, socket: str, directory: Path) -> None:
        self._forks = forks
        self._words = [url, socket]
        self._directory = directory
        self.processes: list[Fork] = []

    def start(self) -> None:
        log = self._directory / "relay.log"
        self.processes.append(self._forks.begin(_PROGRAM, self._words, self._directory, log))

    def kill(self, number: int) -> None:
        process = self.processes.pop(number)
        process.kill()
        process.wait(60)

    def close(self) -> None:
        while self.processes:
            self.kill(0)


def run(mail: Mail, node: Service, relays: Relays, stack: ExitStack, kills: int) -> int:
    """
    Send, kill, and look; returns how many copies there are too many.
    """
    random = Random(f"relay/{kills}/{mail.url.partition(':')[0]}")
    blocked = mail.root / "example.org" / "slow"
    blocked.parent.mkdir(parents=True)
    # Where her Maildir should be, there is something else: 451.
    blocked.write_bytes(b"")
    relays.start()
    relays.start()
    final: dict[tuple[str, str], int] = {}
    for number in range(kills):
        for _ in range(random.randrange(2, 8)):
            mail.send()
        if number == kills * 2 // 3:
            blocked.unlink(missing_ok=True)
        time.sleep(random.uniform(0.05, 0.9))
        if random.random() < 0.3:
            node.kill()
            node.wait()
            node.start()
        relays.kill(random.randrange(2))
        # The other one goes on: who was known before we count has all copies that may be.
        known = mail.known()
        arrived = mail.arrived()
        for each in known - final.keys():
            final[each] = arrived[each]
        relays.start()
    wait_until(lambda: mail.left() == 0, 300, "the queue is empty")
    relays.close()

    arrived = mail.arrived()
    assert set(arrived) == {(id, to) for id in mail.sent for to in (ANN, SLOW)}, "lost"
    again = {each: (count, arrived[each]) for each, count in final.items() if arrived[each] > count}
    assert again == {}, "tried again although it was known"
    check_bounces(mail)
    return sum(arrived.values()) - len(arrived)


def check_bounces(mail: Mail) -> None:
    """
    Each message has a bounce, for the one who is not there and for nobody else.
    """
    told: Counter[str] = Counter()
    for text in mail.texts("me"):
        bounce = message_from_bytes(text, policy=default)
        status = list(bounce.iter_parts())[1]
        failed = [part["Final-Recipient"] for part in list(status.iter_parts())[1:]]
        assert failed == [f"rfc822; {NOBODY}"]
        match = _token(text)
        assert match is not None
        told[match[1].decode()] += 1
    assert set(told) == set(mail.sent), "somebody was not told"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_killed(
    kind: str,
    directory: Path,
    service: Callable[..., Service],
    begun_servers: Forks,
    stack: ExitStack,
    request: pytest.FixtureRequest,
) -> None:
    """
    Two relays share a queue; they and their server are killed again and again.
    """
    if kind == "sqlite":
        url = f"sqlite:///{directory}/queue.db"
    else:
        url = request.getfixturevalue("postgresql").new()
    root = directory / "mail"
    root.mkdir()
    users = directory / "users"
    users.write_text("".join(f"{each}\n" for each in (ANN, SLOW, ME)))
    node = service(root, arguments=("--users", f"file:{users}"))
    relays = Relays(begun_servers, url, str(node.where), directory)
    stack.callback(relays.close)
    mail = Mail(url, root)
    stack.callback(mail.engine.dispose)

    twice = run(mail, node, relays, stack, KILLS)

    # For the one who reads the report of such a run (pytest -s).
    print(f"{KILLS} kills, {len(mail.sent)} messages, {twice} copies too many")  # noqa: T201
