"""
A command for each message: what it is given, and what its end means.
"""

from __future__ import annotations

import errno
import os
import pwd
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from lmtpsvc import replies
from lmtpsvc.backends.pipe import STATUSES, PipeBackend, PipeFactory
from lmtpsvc.backends.pipe_process import _living
from lmtpsvc.backends.pipe_settings import Account, PipeSettings, from_words
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError
from lmtpsvc.interfaces import IBackend, IBackendFactory
from lmtpsvc.replies import Reply
from lmtpsvc.testing import MemoryMessage, envelope

from ..rows import each_row

ANN = Mailbox("ann", "example.org", "lists", home="/home/ann")
BOB = Mailbox("bob", "example.org")
TEXT = b"Subject: hello\r\n\r\nbody\r\n"
MESSAGE = MemoryMessage(TEXT, deadline=1e12)
SHELL = "/bin/sh"


@pytest.fixture
def pipe(spot_pool: Any) -> Callable[..., PipeBackend]:
    """
    ``pipe(word, ..., option=value)``: a backend that runs that command on the spot.
    """

    def make(*words: str, **options: str) -> PipeBackend:
        return PipeBackend(from_words(words, options), spot_pool, Clock())

    return make


def outcomes(
    backend: PipeBackend, mailboxes: Sequence[Mailbox], message: MemoryMessage = MESSAGE
) -> list[Reply | None]:
    """
    What each recipient is told; None is yes.
    """
    seen: list[Reply | None] = []
    for result in backend.deliver(message, mailboxes):
        ended: list[Any] = []
        result.addBoth(ended.append)
        (outcome,) = ended
        if isinstance(outcome, Failure):
            error = outcome.value
            assert isinstance(error, DeliveryError)
            seen.append(error.reply)
        else:
            seen.append(outcome)
    return seen


class TestMessage:
    @pytest.mark.parametrize("newline", ["lf", "crlf"])
    @pytest.mark.parametrize("spooled", [False, True])
    def test_standard_input(
        self, pipe: Callable[..., PipeBackend], tmp_path: Path, newline: str, spooled: bool
    ) -> None:
        """
        It is the whole message, from memory or from the spool.
        """
        backend = pipe(SHELL, "-c", 'cat > "$1"', "sh", f"{tmp_path}/{{user}}", newline=newline)
        ending = backend.capabilities.line_ending
        message = MESSAGE.spooled(str(tmp_path), ending) if spooled else MESSAGE

        assert [None] == outcomes(backend, [ANN], message)

        want = TEXT if newline == "crlf" else TEXT.replace(b"\r\n", b"\n")
        assert want == (tmp_path / "ann").read_bytes()

    def test_more_than_a_pipe_holds(self, pipe: Callable[..., PipeBackend]) -> None:
        """
        A command that reads nothing, or that says more than it is asked, does not get stuck.
        """
        message = evolve(MESSAGE, text=b"x" * 300_000 + b"\r\n")

        assert [None] == outcomes(pipe("/bin/true"), [ANN], message)
        assert [None] == outcomes(pipe("/bin/cat"), [ANN], message)

    def test_arguments(self, pipe: Callable[..., PipeBackend], tmp_path: Path) -> None:
        """
        Fields are filled in, and nothing in them means anything to a shell.
        """
        odd = Mailbox("a b;touch x", "example.org")
        said = "{user}|{domain}|{detail}|{home}|{recipient}|{sender}|{id}|{size}|{client}"
        script = 'f=$1; shift; for a in "$@"; do echo "$a" >> "$f"; done'
        backend = pipe(SHELL, "-c", script, "sh", f"{tmp_path}/out", said, "$HOME `id`")

        assert [None, None] == outcomes(backend, [ANN, odd])

        first, literal, second, _ = (tmp_path / "out").read_text().splitlines()
        whole = "ann|example.org|lists|/home/ann|ann+lists@example.org|sender@example.net|0123456789abcdef|24|127.0.0.1"
        assert whole == first
        assert "$HOME `id`" == literal
        assert second.startswith("a b;touch x|")

    def test_environment(self, pipe: Callable[..., PipeBackend], tmp_path: Path) -> None:
        """
        Nothing of ours is in it, and all that is known of the message.
        """
        os.environ["SECRET_OF_THE_SERVICE"] = "x"
        try:
            outcomes(pipe("/bin/sh", "-c", f"/usr/bin/env > {tmp_path}/env"), [ANN])
        finally:
            del os.environ["SECRET_OF_THE_SERVICE"]

        found = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
        for name in ("PWD", "SHLVL", "_", "OLDPWD"):
            found.pop(name, None)
        assert {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "SENDER": "sender@example.net",
            "CLIENT": "127.0.0.1",
            "MESSAGE_ID": "0123456789abcdef",
            "SIZE": "24",
            "RECIPIENT": "ann+lists@example.org",
            "USER": "ann",
            "DOMAIN": "example.org",
            "DETAIL": "lists",
            "HOME": "/home/ann",
        } == found

    def test_once_for_each_mailbox(self, pipe: Callable[..., PipeBackend], tmp_path: Path) -> None:
        """
        One that is named twice gets one copy, and two answers.
        """
        backend = pipe(SHELL, "-c", 'echo x >> "$1"', "sh", f"{tmp_path}/{{user}}")

        assert [None, None, None] == outcomes(backend, [ANN, BOB, ANN])
        assert "x\n" == (tmp_path / "ann").read_text()

    def test_once_for_all(self, pipe: Callable[..., PipeBackend], tmp_path: Path) -> None:
        """
        With per=message, each recipient is an argument.
        """
        backend = pipe(
            SHELL, "-c", 'f=$1; shift; echo "$@" >> "$f"', "sh", f"{tmp_path}/out", "{recipients}",
            per="message",
        )  # fmt: skip

        assert [None, None] == outcomes(backend, [ANN, BOB])
        said = (tmp_path / "out").read_text()
        assert "ann+lists@example.org bob@example.org\n" == said

    @pytest.mark.parametrize("user", ["-rf", "a\nb", "a\x7fb"])
    def test_no_option(self, pipe: Callable[..., PipeBackend], user: str) -> None:
        """
        An address that the command would take for an option is refused at RCPT.
        """
        with pytest.raises(DeliveryError) as caught:
            pipe("/bin/true", "{user}").verify(Mailbox(user, "example.org"))

        assert 553 == caught.value.reply.code
        if user == "-rf":
            pipe("/bin/true", "--user={user}").verify(Mailbox(user, "example.org"))


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "reply"),
        [
            (0, None),
            (67, replies.NO_SUCH_USER),
            (65, STATUSES[65]),
            (77, STATUSES[77]),
            (1, replies.CANNOT_STORE),
            (75, replies.CANNOT_STORE),
            (78, replies.CANNOT_STORE),
            (255, replies.CANNOT_STORE),
        ],
    )
    def test_reply(
        self, pipe: Callable[..., PipeBackend], status: int, reply: Reply | None
    ) -> None:
        """
        Those of sysexits.h that are about the mail are for good, all others for now.
        """
        assert [reply] == outcomes(pipe(SHELL, "-c", f"exit {status}"), [ANN])

    def test_each_its_own(self, pipe: Callable[..., PipeBackend]) -> None:
        """
        Each recipient is answered with the exit status of his own run.
        """
        backend = pipe(SHELL, "-c", 'test "$USER" = ann || exit 67')

        assert [None, replies.NO_SUCH_USER] == outcomes(backend, [ANN, BOB])

    def test_signal(self, pipe: Callable[..., PipeBackend]) -> None:
        """
        A command that a signal has ended is "not now".
        """
        assert [replies.CANNOT_STORE] == outcomes(pipe(SHELL, "-c", "kill -9 $$"), [ANN])

    def test_the_log(self, pipe: Callable[..., PipeBackend]) -> None:
        """
        What it said is for the log, up to a bound, and not for the client.
        """
        script = "echo out; echo err >&2; head -c 100000 /dev/zero | tr '\\0' x; exit 70"
        with capturedLogs() as events:
            (reply,) = outcomes(pipe(SHELL, "-c", script, output="2000"), [ANN])

        (said,) = [formatEvent(event) or "" for event in events]
        assert "for ann+lists@example.org ended with status 70: out\nerr\nxxx" in said
        assert 1900 < said.count("x") <= 2010
        assert replies.CANNOT_STORE == reply

    def test_gone(self, pipe: Callable[..., PipeBackend], tmp_path: Path) -> None:
        """
        A command that has been uninstalled is no reason to return mail.
        """
        program = tmp_path / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        backend = pipe(str(program))
        program.unlink()

        assert [replies.CANNOT_STORE] == outcomes(backend, [ANN])


@pytest.mark.timeout(40)
class TestTime:
    @pytest.mark.parametrize("script", ["sleep 60", "trap '' TERM; sleep 60 & wait; sleep 60"])
    def test_ended(
        self, pipe: Callable[..., PipeBackend], script: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        When its time is up it is ended, with all it has started, politely at first.
        """
        monkeypatch.setattr("lmtpsvc.backends.pipe_process.GRACE", 0.1)
        assert [replies.OUT_OF_TIME] == outcomes(pipe(SHELL, "-c", script, timeout="0.1"), [ANN])

    def test_not_ours_to_end(
        self, pipe: Callable[..., PipeBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A command that has become another user, as sudo does, is not waited for either.
        """
        monkeypatch.setattr("lmtpsvc.backends.pipe_process.GRACE", 0.01)
        os.mkfifo(tmp_path / "until")
        told: list[int] = []

        def killpg(pid: int, number: int) -> None:
            told.append(pid)
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "killpg", killpg)
        backend = pipe(SHELL, "-c", f"read line < {tmp_path}/until", timeout="0.1")
        assert [replies.OUT_OF_TIME] == outcomes(backend, [ANN])

        (process,) = _living
        assert [process.pid] * 2 == told
        (tmp_path / "until").write_text("now\n")
        assert 0 == process.wait()
        assert [None] == outcomes(pipe("/bin/true"), [ANN])
        assert not _living

    def test_not_begun(self, pipe: Callable[..., PipeBackend], tmp_path: Path) -> None:
        """
        After the deadline of the message nothing is begun.
        """
        backend = pipe("/bin/touch", f"{tmp_path}/touched")

        assert [replies.OUT_OF_TIME] == outcomes(backend, [ANN], evolve(MESSAGE, deadline=0.0))
        assert not (tmp_path / "touched").exists()

    def test_cancelled(self, held_pool: Any, tmp_path: Path) -> None:
        """
        What is called off before it begins is not begun; the others of the message are told.
        """
        settings = PipeSettings("/bin/sh", ("-c", f"echo $0 $1 > {tmp_path}/out", "{recipients}"))
        backend = PipeBackend(evolve(settings, per_message=True), held_pool, Clock())
        first, second = backend.deliver(MESSAGE, [ANN, BOB])
        first.addErrback(lambda _: None)
        first.cancel()
        done: list[object] = []
        second.addCallback(done.append)

        held_pool.work()

        assert [None] == done
        assert "bob@example.org\n" == (tmp_path / "out").read_text()

    def test_what_it_leaves_behind(self, pipe: Callable[..., PipeBackend]) -> None:
        """
        A process that it leaves running, with its output open, keeps nobody waiting.
        """
        assert [None] == outcomes(pipe(SHELL, "-c", "sleep 30 & echo started"), [ANN])


def test_no_descriptors(
    pipe: Callable[..., PipeBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What cannot be waited for is not started: its mail would come again.
    """

    def nothing_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("selectors.DefaultSelector", nothing_left)

    assert [replies.CANNOT_STORE] == outcomes(pipe("/bin/touch", f"{tmp_path}/touched"), [ANN])
    assert not (tmp_path / "touched").exists()


@pytest.mark.usefixtures("as_root")
class TestAccount:
    @pytest.mark.usefixtures("passable")
    def test_as(self, pipe: Callable[..., PipeBackend], tmp_path: Path) -> None:
        """
        Another user, with that user's groups and none of ours.
        """
        tmp_path.chmod(0o777)
        backend = pipe(
            SHELL,
            "-c",
            f"/usr/bin/id -u > {tmp_path}/u; /usr/bin/id -G > {tmp_path}/g",
            **{"as": "nobody"},
        )
        nobody = pwd.getpwnam("nobody")

        assert [None] == outcomes(backend, [ANN])

        assert f"{nobody.pw_uid}\n" == (tmp_path / "u").read_text()
        assert f"{nobody.pw_gid}\n" == (tmp_path / "g").read_text()

    def test_owner(self, pipe: Callable[..., PipeBackend], tmp_path: Path) -> None:
        """
        The one that the directory names; if it names none, later.
        """
        backend = pipe(SHELL, "-c", 'test "$(/usr/bin/id -u)" = 4711', **{"as": "owner"})

        assert [None] == outcomes(backend, [evolve(ANN, uid=4711, gid=4711)])
        (reply,) = outcomes(backend, [ANN])
        assert reply is not None
        assert 451 == reply.code

    def test_root_must_be_asked_for(self, pipe: Callable[..., PipeBackend]) -> None:
        """
        A service that is still root does not start with a command that nobody meant to run so.
        """
        with pytest.raises(OSError, match="as=USER"):
            pipe("/bin/true").startService()
        pipe("/bin/true", **{"as": "root"}).startService()


class TestWords:
    def test_all(self) -> None:
        """
        All options are read.
        """
        settings = from_words(
            [sys.executable, "a", "{recipients}"],
            {
                "per": "message",
                "timeout": "2m",
                "output": "1K",
                "newline": "crlf",
                "processes": "3",
            },
        )

        assert (
            PipeSettings(
                sys.executable, ("a", "{recipients}"), True, None, False, 120.0, 1024, "\r\n", 3
            )
            == settings
        )

    @each_row(
        ("words", "options", "said"),
        [
            ((), {}, "expected pipe:COMMAND"),
            (("cat",), {}, "write the whole path"),
            (("/nowhere",), {}, "no such file"),
            (("/etc/passwd",), {}, "cannot be executed"),
            (("/bin/true", "{usr}"), {}, "{usr} is not a field"),
            (("/bin/true", "{recipients}"), {}, "per=message only"),
            (("/bin/true", "{user}"), {"per": "message"}, "several recipients"),
            (("/bin/true",), {"per": "day"}, "per=day: expected recipient or message"),
            (("/bin/true",), {"as": "no-such-user"}, "as=no-such-user: no such user"),
            (("/bin/true",), {"as": "owner", "per": "message"}, "as=owner"),
            (("/bin/true",), {"timeout": "soon"}, "timeout: 'soon' is not a time"),
            (("/bin/true",), {"output": "0"}, "output: '0' is not a number of octets"),
            (("/bin/true",), {"processes": "0"}, "processes: "),
            (("/bin/true",), {"colour": "red"}, "colour: no such option"),
        ],
    )
    def test_mistakes(self, words: tuple[str, ...], options: dict[str, str], said: str) -> None:
        """
        Each is one line.
        """
        with pytest.raises(ValueError) as caught:
            from_words(words, options)

        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_another_user_needs_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Only root can run a command as somebody else, and others are told so at start.
        """
        monkeypatch.setattr(os, "geteuid", lambda: 4711)

        with pytest.raises(ValueError, match="only root"):
            from_words(["/bin/true"], {"as": "nobody"})

    def test_factory(self) -> None:
        """
        The plugin is one, and makes a backend that says what it runs.
        """
        factory = PipeFactory()
        assert verifyObject(IPlugin, factory)
        assert verifyObject(IBackendFactory, factory)
        backend = factory.build(reactor, "/bin/true")
        assert verifyObject(IBackend, backend)
        assert isinstance(backend, PipeBackend)
        assert "/bin/true" == backend.where(ANN)

    def test_account(self) -> None:
        """
        An account is found by its name.
        """
        assert 0 == Account.of("root").uid


def test_sender_cannot_be_an_option(pipe: Callable[..., PipeBackend]) -> None:
    """
    It is known at delivery only, and is refused then.
    """
    message = evolve(MESSAGE, envelope=envelope("ann@example.org", sender="-x@example.net"))

    (reply,) = outcomes(pipe("/bin/true", "{sender}"), [ANN], message)

    assert reply is not None
    assert 553 == reply.code
