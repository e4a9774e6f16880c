"""
``lmtpsvc send``: its words, its message, and what it shows.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmtpsvc.__main__ import main
from lmtpsvc.commands.letter import letter
from lmtpsvc.commands.sending import ALL, MISTAKE, NONE, SOME, Shown
from lmtpsvc.commands.transfer import Bar
from lmtpsvc.envelope import Address, Recipient, Sender
from lmtpsvc.replies import Reply
from lmtpsvc.session.outcomes import Outcome, Stage
from lmtpsvc.wire.heard_replies import HeardReply

ANN = Recipient(Address("ann", "example.org"))
BOB = Recipient(Address("bob", "example.org"))
YES = Outcome(Reply(250, "OK", (0, 0)), Stage.MESSAGE)
NO = Outcome(Reply(451, "no", (4, 1)), Stage.CONNECT, detail="host unknown")
TO = ("--to", "ann@example.org", "127.0.0.1:1")


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ((), "--to"),
            (("--to", "ann@example.org"), "TO"),
            (("--to", "ann", "127.0.0.1:1"), "not an address: 'ann'"),
            (("--from", "a b", *TO), "not an address: 'a b'"),
            (("--lmtp", "--smtp", *TO), "not allowed with"),
            (("--repeat", "0", *TO), "'0' is no number from 1 on"),
            (("--timeout", "soon", *TO), "'soon' is no number of seconds"),
            (("--tls", "perhaps", *TO), "perhaps"),
            (("--xclient", "ADDR", *TO), "ADDR: expected NAME=VALUE"),
            (("--password-file", "x", *TO), "--auth"),
            (("--auth", "me", *TO), "--auth needs --password-file"),
            (("--auth", "me", "--password-file", "/nowhere", *TO), "/nowhere: No such file"),
            (("--auth", "me", "--password-file", "/dev/null", "--mechanism", "X", *TO), "X"),
            (("--tls-authorities", "/dev/null", *TO), "/dev/null: there is no PEM"),
            (("--tls-certificate", "/dev/null", *TO), "/dev/null: not a PEM"),
            (("--tls-certificate", "/nowhere", *TO), "/nowhere: No such file"),
            ((*TO, "/nowhere"), "/nowhere: No such file"),
            ((*TO, "/"), "/: Is a directory"),
            (("--repea", "1", *TO), "--repea"),
        ],
    )
    def test_one_line(
        self,
        words: tuple[str, ...],
        said: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """
        Each is one line that names it, and the status says that nothing was sent.
        """
        monkeypatch.setattr(sys, "stdin", io.StringIO())

        assert main(["send", *words]) == MISTAKE

        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("lmtpsvc send: ")
        assert output.err.count("\n") == 1
        assert said in output.err

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        """
        The help tells all options, and what the exit status means.
        """
        with pytest.raises(SystemExit) as ended:
            main(["send", "--help"])

        assert ended.value.code == 0
        output = capsys.readouterr().out
        assert "The exit status is 0" in output
        assert "--xclient" in output
        assert "what is piped to the command is not read" in output


class TestLetter:
    @pytest.mark.parametrize(
        ("octets", "sent"),
        [
            (b"a\nb\n", b"a\r\nb\r\n"),
            (b"a\r\nb\n", b"a\r\nb\r\n"),
            (b"a\rb", b"a\rb"),
            (b"", b""),
            (b"x\n" * 600_000, b"x\r\n" * 600_000),
            (b"x" * 1_048_575 + b"\r\n" + b"y\r", b"x" * 1_048_575 + b"\r\n" + b"y\r"),
            (b"x" * (1_048_576 + 65_535) + b"\r\n", b"x" * (1_048_576 + 65_535) + b"\r\n"),
        ],
        ids=["LF", "mixed", "CR", "empty", "long", "CRLF at an edge", "CRLF at another edge"],
    )
    def test_line_ends(self, octets: bytes, sent: bytes, tmp_path: Path) -> None:
        """
        LF becomes CRLF, once, however long the file; and it can be opened again and again.
        """
        (tmp_path / "file").write_bytes(octets)
        made = letter(str(tmp_path / "file"), Sender(None), [ANN], binary=False)
        for _ in range(2):
            with made.open() as file:
                assert file.read() == sent
        made.close()

    @pytest.mark.parametrize("octets", [b"a\n\0", b"\n" * 1_100_000])
    def test_binary(self, octets: bytes, tmp_path: Path) -> None:
        """
        What is binary is left as it is.
        """
        (tmp_path / "file").write_bytes(octets)
        made = letter(str(tmp_path / "file"), Sender(None), [ANN], binary=True)
        with made.open() as file:
            assert file.read() == octets
        made.close()

    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        ``-`` reads it.
        """
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a\n")))

        assert letter("-", Sender(None), [ANN], binary=False).open().read() == b"a\r\n"

    def test_made_up(self) -> None:
        """
        Without a file there is a message with the headers that one must have.
        """
        text = letter(None, Sender(None), [ANN, BOB], binary=False).open().read()

        for header in (b"Date: ", b"From: ", b"To: ann@example.org, bob@", b"Message-ID: <"):
            assert b"\r\n" + header in b"\r\n" + text


class TestShown:
    def test_conversation(self, capsys: pytest.CaptureFixture[str]) -> None:
        """
        Commands and replies as they come, with times, then each outcome, then a line for all.
        """
        shown = Shown(quiet=False, single=True)
        shown.reply("", HeardReply(220, ("foo.edu",)))
        shown.reply("LHLO me", HeardReply(250, ("foo.edu", "SIZE")))
        shown.reply(".", HeardReply(250, ("OK",), (0, 0)))
        shown.reply("", HeardReply(250, ("OK",), (0, 0)))
        shown.outcome(ANN, YES)
        shown.outcome(BOB, NO)
        shown.summary(1)

        lines = [line[10:] for line in capsys.readouterr().out.splitlines()]
        assert lines[:-1] == [
            *["< 220 foo.edu", "> LHLO me", "< 250-foo.edu", "< 250 SIZE"],
            *["> .", "< 250 2.0.0 OK", "< 250 2.0.0 OK"],
            "= ann@example.org: 250 2.0.0 OK",
            "= bob@example.org: 451 4.4.1 no (host unknown)",
        ]
        assert shown.status == SOME

    def test_status(self) -> None:
        """
        The exit status says whether all, some or none were accepted.
        """
        for outcomes, status in (([YES, YES], ALL), ([YES, NO], SOME), ([NO, NO], NONE)):
            shown = Shown(quiet=True, single=False)
            for outcome in outcomes:
                shown.outcome(ANN, outcome)
            assert shown.status == status

    def test_repeated(self, capsys: pytest.CaptureFixture[str]) -> None:
        """
        Of many messages only the refusals are told, each once and how often.
        """
        shown = Shown(quiet=False, single=False)
        for outcome in (YES, NO, NO):
            shown.outcome(ANN, outcome)
            shown.took(0.25)
        shown.summary(3)

        first, last = capsys.readouterr().out.splitlines()
        assert first.split(" × ") == ["        2", "ann@example.org: 451 4.4.1 no (host unknown)"]
        assert last.startswith("1 of 3 recipients accepted in ")
        assert "each 250.0 ms" in last

    def test_quiet(self, capsys: pytest.CaptureFixture[str]) -> None:
        """
        Only what was not accepted.
        """
        shown = Shown(quiet=True, single=True)
        shown.outcome(ANN, YES)
        shown.summary(1)
        assert capsys.readouterr().out == ""
        assert not shown.is_conversation

    @pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "Full")])
    def test_nobody_reads(self, error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What cannot be shown is not shown, and the rest goes on.
        """

        class Gone(io.StringIO):
            def flush(self) -> None:
                raise error

        monkeypatch.setattr(sys, "stdout", Gone())
        shown = Shown(quiet=False, single=True)
        shown.reply("LHLO me", HeardReply(250, ("foo.edu",)))
        shown.outcome(ANN, YES)
        shown.summary(1)
        assert shown.status == ALL
        monkeypatch.setattr(sys, "stdout", None)
        shown.outcome(BOB, NO)
        assert shown.status == SOME

    def test_bar(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """
        On a terminal a bar tells how far it is.
        """
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        now = [0.0]
        bar = Bar("somewhere", 4, lambda: now[0])
        for _ in range(4):
            now[0] += 1
            bar.step()
        bar.end()

        assert "[#######                       ] 1 of 4, 1/s" in capsys.readouterr().err
