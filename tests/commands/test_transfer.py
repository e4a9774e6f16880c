"""
``lmtpsvc export`` and ``import``: there and back, stopped and run again.
"""

from __future__ import annotations

import io
import mailbox
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lmtpsvc.__main__ import main
from lmtpsvc.backends.sql.backend import name_of
from lmtpsvc.backends.sql.reading import Store
from lmtpsvc.backends.sql.versions import MAIL
from lmtpsvc.commands.transfer import Progress, path_for
from lmtpsvc.envelope import Mailbox
from lmtpsvc.testing import MemoryMessage, envelope

ANN, BOB, CAT = (f"{name}@example.org" for name in ("ann", "bob", "cat"))
WHEN = datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
TEXTS = [
    b"Subject: 1\r\n\r\nFrom here\r\n>From there\r\n.\r\n",
    b"Return-Path: <me@example.net>\r\nReceived: by x\r\nSubject: 2\r\n\r\n\xff\r\n\r\n",
    b"Subject: 1\r\n\r\nFrom here\r\n>From there\r\n.\r\n",
    b"Subject: large\r\n\r\n" + b"From x\r\n" * 100_000,
]
FLAGS = [["\\Seen", "\\Answered"], [], ["\\Flagged"], ["\\Seen"]]


@pytest.fixture
def url(tmp_path: Path, sqlite_with: Callable[..., str]) -> str:
    """
    A store in which Ann has four messages, two of which are the same, and Bob has one.
    """
    url = sqlite_with(MAIL, tmp_path / "mail.db")
    with Store.at(url) as store:
        for text, flags in zip(TEXTS, FLAGS, strict=True):
            store.append(ANN, MemoryMessage(text), WHEN, flags)
        store.append(BOB, MemoryMessage(TEXTS[0]), WHEN)
    return url


def contents(url: str, name: str) -> list[tuple[bytes, list[str]]]:
    with Store.at(url) as store:
        found = []
        for message in store.messages(name):
            with store.open(name, message.uid) as file:
                found.append((file.read(), sorted(message.flags)))
        return sorted(found)


EXPECTED = sorted((text, sorted(flags)) for text, flags in zip(TEXTS, FLAGS, strict=True))


class TestMaildir:
    def test_there_and_back(self, url: str, tmp_path: Path) -> None:
        """
        Texts, flags and times come back as they were; a second run of either does nothing.
        """
        to = f"maildir:{tmp_path}/{{domain}}/{{user}}"
        path = f"{tmp_path}/example.org/ann"
        for _ in range(2):
            assert main(["export", url, to]) == 0
        for _ in range(2):
            assert main(["import", f"maildir:{path}", url, CAT]) == 0

        assert contents(url, CAT) == EXPECTED
        assert len(mailbox.Maildir(path)) == len(TEXTS)
        with Store.at(url) as store:
            assert {message.received for message in store.messages(CAT)} == {
                message.received for message in store.messages(ANN)
            }

    def test_moved_by_a_reader(self, url: str, tmp_path: Path) -> None:
        """
        What a mail program has read meanwhile is not written again.
        """
        words = ["export", url, f"maildir:{tmp_path}/{{user}}", BOB]
        assert main(words) == 0
        [name] = os.listdir(tmp_path / "bob" / "new")
        os.rename(tmp_path / "bob" / "new" / name, tmp_path / "bob" / "cur" / f"{name}:2,S")

        assert main(words) == 0

        assert len(mailbox.Maildir(str(tmp_path / "bob"))) == 1

    def test_stopped(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Export and import that are stopped in the middle go on where they were.
        """
        path = f"{tmp_path}/ann"
        for words, method in (
            (["export", url, f"maildir:{path}", ANN], "open"),
            (["import", f"maildir:{path}", url, CAT], "append"),
        ):
            real = getattr(Store, method)
            calls: list[int] = []

            def stop(*arguments: object, _real: object = real, _calls: list[int] = calls) -> object:
                _calls.append(1)
                if len(_calls) == 3:
                    raise KeyboardInterrupt
                return _real(*arguments)  # type: ignore[operator]

            with monkeypatch.context() as patch:
                patch.setattr(Store, method, stop)
                assert main(words) == 130
            assert main(words) == 0

        assert contents(url, CAT) == EXPECTED

    def test_back_where_it_came_from(self, url: str, tmp_path: Path) -> None:
        """
        What the mailbox has already is recognised, trace headers or none.
        """
        assert main(["export", url, f"maildir:{tmp_path}/ann", ANN]) == 0

        assert main(["import", f"maildir:{tmp_path}/ann", url, ANN]) == 0

        assert contents(url, ANN) == EXPECTED


class TestMbox:
    def test_there_and_back(self, url: str, tmp_path: Path) -> None:
        """
        Texts and flags come back, behind the headers that keep the flags; and nothing twice.
        """
        for _ in range(2):
            assert main(["export", url, f"mbox:{tmp_path}/{{user}}.mbox"]) == 0
        for _ in range(2):
            assert main(["import", f"mbox:{tmp_path}/ann.mbox", url, CAT]) == 0

        found = contents(url, CAT)
        assert [flags for _, flags in found].count(["\\Seen"]) == 1
        texts = [
            text[text.find(b"Return-Path") if b"Return-Path" in text else text.index(b"Subject") :]
            for text, _ in found
        ]
        assert sorted(texts) == sorted(TEXTS)
        assert sorted(flags for _, flags in found) == sorted(flags for _, flags in EXPECTED)
        assert sorted(os.listdir(tmp_path))[:2] == ["ann.mbox", "bob.mbox"]

    def test_senders_of_the_world(self, url: str, tmp_path: Path) -> None:
        """
        What is not ASCII in the line before a message keeps neither it nor those behind it back.
        """
        path = tmp_path / "mbox"
        path.write_bytes(
            b"From j\xc3\xb6rg@example.org Sat Feb  3 04:05:06 2024\nStatus: RO\n\nOne.\n\n"
            b"From \xff Sat Feb  3 04:05:06 2024\nX-Status: A\n\nTwo.\n\n"
        )

        assert main(["import", f"mbox:{path}", url, CAT]) == 0
        assert [
            (b"Status: RO\r\n\r\nOne.\r\n", ["\\Seen"]),
            (b"X-Status: A\r\n\r\nTwo.\r\n", ["\\Answered"]),
        ] == contents(url, CAT)

    def test_left_locked(self, url: str, tmp_path: Path) -> None:
        """
        The lock of an import that was killed is no lock.
        """
        path = tmp_path / "mbox"
        path.write_text("From x Sat Feb  3 04:05:06 2024\n\nHello\n\n")
        program = (
            "import os, signal; from lmtpsvc.commands import importing;"
            "importing._import = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
            f"importing.main(['mbox:{path}', {url!r}, {CAT!r}])"
        )
        done = subprocess.run([sys.executable, "-c", program], check=False)
        assert done.returncode == -signal.SIGKILL
        assert (tmp_path / "mbox.lock").exists()

        assert main(["import", f"mbox:{path}", url, CAT]) == 0

        assert len(contents(url, CAT)) == 1
        assert not (tmp_path / "mbox.lock").exists()

    def test_locked(self, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """
        A mailbox that another program is writing to has to wait.
        """
        path = tmp_path / "mbox"
        path.touch()
        (tmp_path / "mbox.lock").write_text("another\n")

        assert main(["import", f"mbox:{path}", url, CAT]) == 1

        said = capsys.readouterr().err
        assert f"lmtpsvc import: {path} is locked by another program; try again\n" == said

    def test_not_over_another(self, url: str, tmp_path: Path) -> None:
        """
        A file that is there stays as it is.
        """
        (tmp_path / "mbox").write_text("mine")

        assert main(["export", url, f"mbox:{tmp_path}/mbox", ANN]) == 0

        assert (tmp_path / "mbox").read_text() == "mine"


class TestAnotherStore:
    @pytest.fixture
    def other(self, tmp_path: Path) -> str:
        """
        An empty store.
        """
        url = f"sqlite:///{tmp_path}/other.db"
        assert main(["sql", "upgrade", url]) == 0
        return url

    def test_all_of_it(self, url: str, other: str) -> None:
        """
        Everything that is known of each message is the same there; a second run does nothing.
        """
        with Store.at(url) as store:
            head = b"Return-Path: <a@b>\r\nReceived: by x\r\n"
            text = b"Received: of the client\r\n\r\nHello\r\n"
            who = envelope("Bob+x@example.org", sender='"a b"@example.net')
            store.append(BOB, MemoryMessage(head + text, trace=head, envelope=who))
            store.delete(ANN, [2])
        for _ in range(2):
            assert main(["export", url, other]) == 0

        assert contents(url, BOB) == contents(other, BOB)
        with Store.at(url) as store, Store.at(other) as there:
            assert list(store.messages(BOB)) == list(there.messages(BOB))
            found = list(there.messages(ANN))
            assert [1, 2, 3] == [each.uid for each in found]
            assert [(each.digest, each.received, each.flags) for each in found] == [
                (each.digest, each.received, each.flags) for each in store.messages(ANN)
            ]

    def test_one_mailbox(self, url: str, other: str) -> None:
        """
        Only the mailbox that is named is exported.
        """
        assert main(["export", url, other, BOB]) == 0

        with Store.at(other) as there:
            assert [BOB] == [box.name for box in there.mailboxes()]

    def test_stopped(self, url: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A copy that is stopped in the middle goes on where it was.
        """
        real, calls = Store.append, []

        def stop(*arguments: Any) -> int:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "append", stop)
            assert main(["export", url, other, ANN]) == 130
        assert main(["export", url, other, ANN]) == 0

        assert contents(other, ANN) == EXPECTED

    @pytest.mark.parametrize("to", ["sqlite:///{}/other.db", "maildir:{}/ann", "mbox:{}/ann"])
    def test_deleted_meanwhile(
        self,
        url: str,
        other: str,
        to: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """
        What somebody deletes between the look at the list and the copy is left out.
        """
        real = Store.open

        def deleting(self: Store, name: str, uid: int) -> Any:
            if uid == 2:
                self.delete(name, [uid])
            return real(self, name, uid)

        monkeypatch.setattr(Store, "open", deleting)
        assert main(["export", url, to.format(tmp_path), ANN]) == 0

        assert f"{ANN}: 3 messages written" in capsys.readouterr().out


class TestProgress:
    def test_a_bar(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        On a terminal it grows, is not drawn for each message, and does not burst.
        """
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        times = iter([0.0, 0.0, 0.1, 1.0, 1.0])
        progress = Progress("ann", 2, lambda: next(times))
        for _ in range(3):
            progress.step()
        progress.end()

        half, full = "#" * 15 + "." * 15, "#" * 30
        assert [f"ann: [{half}] 1 of 2", f"ann: [{full}] 3 of 2", f"ann: [{full}] 3 of 2\n"] == (
            capsys.readouterr().err.split("\r")[1:]
        )

    def test_no_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        """
        Where standard error is no terminal, there is no bar.
        """
        progress = Progress("ann", 1)
        progress.step()
        progress.end()

        assert "" == capsys.readouterr().err


class TestMistakes:
    @pytest.mark.parametrize(
        "words",
        [
            ["export", "URL", "maildir:/tmp/x", "nobody@example.org"],
            ["export", "URL", "maildir:/tmp/same"],
            ["export", "URL", "imap:x"],
            ["export", "URL", "nonsense://x"],
            ["export", "URL", "sqlite:////nowhere/mail.db"],
            ["export", "sqlite:////nowhere/mail.db", "mbox:/tmp/x"],
            ["import", "maildir:/nowhere", "URL", ANN],
            ["import", "mbox:/nowhere", "URL", ANN],
        ],
    )
    def test_one_line(self, words: list[str], url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """
        A mistake is one line and exit status 1.
        """
        assert main([url if word == "URL" else word for word in words]) == 1

        said = capsys.readouterr().err
        assert said.startswith(f"lmtpsvc {words[0]}: ")
        assert said.count("\n") == 1

    @pytest.mark.parametrize("name", ["", "ann\n@example.org", 321 * "x"])
    def test_no_mailbox(
        self, name: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        No mailbox is made that no mail can come to, and that no export of all could write.
        """
        path = tmp_path / "mbox"
        path.write_bytes(b"From me@example.org Sat Feb  3 04:05:06 2024\n\nOne.\n\n")

        assert main(["import", f"mbox:{path}", url, name]) == 1
        assert "cannot be the name of a mailbox\n" in capsys.readouterr().err
        with Store.at(url) as store:
            assert [ANN, BOB] == [box.name for box in store.mailboxes()]

    def test_every_mailbox(self, url: str, tmp_path: Path) -> None:
        """
        Whatever the service takes for the name of a mailbox is one here, too: a letter that cannot be
        seen, say.
        """
        name = name_of(Mailbox("a\N{ZERO WIDTH NON-JOINER}n", "example.org"))
        path = tmp_path / "mbox"
        path.write_bytes(b"From me@example.org Sat Feb  3 04:05:06 2024\n\nOne.\n\n")

        assert main(["import", f"mbox:{path}", url, name]) == 0
        with Store.at(url) as store:
            assert store.mailbox(name).messages == 1

    @pytest.mark.parametrize("kind", ["maildir", "mbox", "store"])
    def test_output_that_cannot_leave(
        self,
        kind: str,
        url: str,
        tmp_path: Path,
        sqlite_with: Callable[..., str],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """
        Is not taken for a place that is full.
        """

        class Full(io.StringIO):
            def write(self, _text: str) -> int:
                raise OSError(28, "No space left")

        to = f"{kind}:{tmp_path}/{{user}}"
        if kind == "store":
            to = sqlite_with(MAIL, tmp_path / "other.db")
        monkeypatch.setattr(sys, "stdout", Full())

        assert main(["export", url, to]) == 1
        assert capsys.readouterr().err == "lmtpsvc: standard output: No space left\n"

    @pytest.mark.parametrize(
        "name", ["../x@example.org", "..@example.org", ".x@a", "a/b@a", "x@", "@"]
    )
    def test_climbing_out(self, name: str) -> None:
        """
        The name of a mailbox is never a path.
        """
        with pytest.raises(ValueError):
            path_for("/srv/{domain}/{user}", name)

    def test_internationalised(self) -> None:
        """
        The domain is that of the mailbox, however it is written.
        """
        assert path_for("/{domain}/{user}", "ann@bücher.example") == "/xn--bcher-kva.example/ann"

    def test_braces(self) -> None:
        """
        What stands in a name is no field.
        """
        assert path_for("/{user}/{domain}", "{domain}@x") == "/{domain}/x"
