"""
The promise of a backend that claims to keep mail safe: what was answered 250 survives ``kill -9``
and a power cut, whole and once.

::

    class TestTicketsCrash(CrashContract):
        def spec(self, directory):
            return f"tickets:{directory}/tickets.db"

        def stored(self, directory, mailbox):
            return texts_in(f"{directory}/tickets.db", mailbox)

The tests start a real ``twistd lmtp``, which must find the plugin.  They need no reactor, and run
under any runner.  Those that cut the power need root, and a kernel with ext4 and loop devices.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import ClassVar
from unittest import SkipTest

from ..envelope import Mailbox
from .disk import Disk, Unavailable
from .load import PATIENCE, Client, Load, Server, compose

_name = re.compile(rb"^Message-ID: <([0-9a-f]+)@crash>\r?$", re.MULTILINE).search


class CrashContract:
    """
    Inherit this, and define `spec` and `stored`.
    """

    #: Mailboxes that the backend takes.
    mailboxes: ClassVar[Sequence[Mailbox]] = (
        Mailbox("ann", "example.org"),
        Mailbox("bob", "example.org"),
        Mailbox("cid", "example.com"),
    )

    #: How often the server is killed, and the power cut, each time somewhere else.
    rounds: ClassVar[int] = 20

    def spec(self, directory: Path) -> str:
        """
        What stands behind ``--backend``, for mail that is kept in *directory*.
        """
        raise NotImplementedError

    def stored(self, directory: Path, mailbox: Mailbox) -> Sequence[bytes]:
        """
        The messages that are in *mailbox*, as in `BackendContract.stored`.
        """
        raise NotImplementedError

    def expected(self, text: bytes) -> bytes:
        """
        What `stored` is to end with for a message with *text*; trace headers may stand before it.
        """
        return text

    def test_killed(self) -> None:
        """
        ``kill -9`` while clients deliver; the next server finds all that was promised.
        """
        with ExitStack() as stack:
            directory = self._directory(stack)
            for number in range(self.rounds):
                place = directory / f"mail-{number}"
                place.mkdir()
                server = Server(self.spec(place), directory)
                stack.callback(server.kill)
                self._round(server, place, f"kill/{number}", server.kill, server.kill)

    def test_power_cut(self) -> None:
        """
        The power goes while clients deliver; what was promised is on the disk.

        The server lives on for a while on a disk that fails, and must promise nothing for what comes
        then.  What was on its way when the power went may be answered anything: ext4 ends a sync that
        is under way when it is shut down, now and then, with success although nothing was written.
        Without power nobody would hear of it.
        """
        with ExitStack() as stack:
            directory = self._directory(stack)
            try:
                disk = Disk(directory)
            except Unavailable as error:
                if os.environ.get("LMTPSVC_REQUIRE_PEERS") == "1":
                    raise
                raise SkipTest(str(error)) from error
            stack.callback(disk.close)
            for number in range(self.rounds):
                disk.format()
                place = disk.point / "mail"
                place.mkdir()
                # The directory is the operator's, and on the disk for good.
                os.sync()
                server = Server(self.spec(place), directory)
                stack.callback(server.kill)

                def restart(server: Server = server) -> None:
                    server.kill()
                    disk.restart()

                seed = f"power/{number}"
                self._round(server, place, seed, disk.cut_power, restart, lives_on=True)

    def _round(
        self,
        server: Server,
        place: Path,
        seed: str,
        act: Callable[[], None],
        recover: Callable[[], None],
        *,
        lives_on: bool = False,
    ) -> None:
        """
        Clients deliver until *act*; then *recover*, start anew, deliver to all and look.

        *lives_on*: the server does, after *act*, without what is needed to keep a promise.
        """
        recipients = [f"{each.user}@{each.domain}" for each in self.mailboxes]
        random = Random(seed)  # noqa: S311 - the same each time
        server.start()
        load = Load(server.socket, recipients, random, random.randrange(1, 100), act)
        acted = load.acted.wait(PATIENCE)
        load.stop()
        assert acted, f"{len(load.promised)} deliveries, too few: {server.log[-2000:]}"
        if lives_on:
            load.promised -= load.doubtful
        recover()
        server.start()
        name, load.sent[name] = compose(random)
        client = Client(server.socket)
        codes: list[int] = []
        client.deliver(load.sent[name], recipients, lambda _, code: codes.append(code))
        client.close()
        server.kill()
        # A lock that was left behind may be waited for, but nobody may be turned away for good.
        refused = [code for code in codes if code >= 500]
        assert not refused, f"after it, mail is answered {codes}: {server.log[-2000:]}"
        answers = zip(recipients, codes, strict=True)
        load.promised |= {(name, recipient) for recipient, code in answers if code == 250}
        harm = self._harm(place, recipients, load)
        assert not harm, f"{len(harm)} broken promises: {'; '.join(harm[:5])}"

    def _harm(self, place: Path, recipients: Sequence[str], load: Load) -> list[str]:
        """
        Each broken promise in words.
        """
        found: Counter[tuple[str, str]] = Counter()
        harm = []
        for mailbox, recipient in zip(self.mailboxes, recipients, strict=True):
            for text in self.stored(place, mailbox):
                match = _name(text)
                name = match[1].decode() if match else ""
                whole = self.expected(load.sent.get(name, b"nothing of that name"))
                if text.replace(b"\r\n", b"\n").endswith(whole.replace(b"\r\n", b"\n")):
                    found[name, recipient] += 1
                else:
                    harm.append(f"broken: {name or 'no name'} for {recipient}, {len(text)} octets")
        harm += [f"lost: {name} for {recipient}" for name, recipient in load.promised - set(found)]
        harm += [f"doubled: {name} for {who}" for (name, who), n in found.items() if n > 1]
        return harm

    def _directory(self, stack: ExitStack) -> Path:
        # Short: the path of a UNIX socket has little room.
        directory = Path(tempfile.mkdtemp(prefix="lmtpsvc-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        return directory
