"""
Several checkers as one, and the words that choose them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import FilePasswordDB
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from zope.interface import Interface

from lmtpsvc import replies
from lmtpsvc.auth.authority import CheckerAuthority
from lmtpsvc.auth.checkers import ScramChecker
from lmtpsvc.auth.specs import checker_from_string, describe_checkers
from lmtpsvc.auth.stored_keys import KeysFile, format_line, make_keys
from lmtpsvc.errors import TemporaryFailure

LINE = format_line("ann", make_keys("secret", 4096))
FAILED_TO_CHECK = replies.LOGIN_UNCHECKED


class Checker:
    """
    A stranger's, that answers with *result*.
    """

    credentialInterfaces: tuple[type[Interface], ...] = (IUsernamePassword,)

    def __init__(self, result: Any) -> None:
        self.result, self.asked = result, 0

    def requestAvatarId(self, credentials: Any) -> Any:
        assert b"ann" == credentials.username
        assert credentials.checkPassword(b"secret")
        self.asked += 1
        if isinstance(self.result, Exception) and not isinstance(self.result, UnauthorizedLogin):
            raise self.result
        return self.result


def no() -> Deferred[Any]:
    return fail(UnauthorizedLogin())


def authority(*checkers: object) -> CheckerAuthority:
    return CheckerAuthority(checkers, execute)


Success = Callable[[Any], Any]


class TestPasswords:
    def test_one_says_yes(self, success_of: Success) -> None:
        """
        The others are not asked any more.
        """
        first, second, third = (
            Checker(no()),
            Checker(succeed(b"Ann")),
            Checker(succeed(b"other")),
        )

        assert "Ann" == success_of(authority(first, second, third).check_password("ann", "secret"))
        assert [1, 1, 0] == [each.asked for each in (first, second, third)]

    def test_all_say_no(self, success_of: Success) -> None:
        """
        A password that no checker takes is wrong.
        """
        assert success_of(authority(Checker(no())).check_password("ann", "secret")) is None

    @pytest.mark.parametrize("result", [OSError(), fail(OSError())], ids=["raised", "failed"])
    def test_one_cannot_say(self, result: Any, success_of: Success, failure_of: Any) -> None:
        """
        Then nobody knows, unless another one says yes; the log has what went wrong.
        """
        if isinstance(result, Deferred):
            result.addErrback(lambda failure: failure)
        broken = Checker(result)
        failure = failure_of(
            authority(broken, Checker(no())).check_password("ann", "secret"), TemporaryFailure
        )
        assert FAILED_TO_CHECK == failure.value.reply

        said = authority(Checker(OSError()), Checker(succeed("ann")))
        assert "ann" == success_of(said.check_password("ann", "secret"))

    def test_no_time_left(self, failure_of: Any) -> None:
        """
        Who has asked waits no longer: it could not be known.
        """
        clock, never = Clock(), Checker(Deferred())
        asked = Deferred.fromCoroutine(authority(never).check_password("ann", "secret"))
        asked.addTimeout(5, clock)

        clock.advance(5)

        assert FAILED_TO_CHECK == failure_of(asked, TemporaryFailure).value.reply

    @pytest.mark.parametrize("avatar", [(), b"", b"\xff", "two words", "line\nfeed", "x" * 300])
    def test_a_name_that_cannot_be_shown(self, avatar: Any, success_of: Success) -> None:
        """
        Nobody logs in under a name that no log could show, nor as nobody.
        """
        said = authority(Checker(succeed(avatar)))

        assert success_of(said.check_password("ann", "secret")) is None

    @pytest.mark.parametrize(
        ("user", "password", "login"),
        [
            ("ann", "secret", "ann"),
            ("ann", "wrong", None),
            ("bob", "secret", None),
            ("Ann", "secret", None),
        ],
    )
    def test_file_of_keys(
        self, user: str, password: str, login: str | None, tmp_path: Path, success_of: Success
    ) -> None:
        """
        The password is looked at in a thread, for somebody unknown too.
        """
        (tmp_path / "logins").write_text(LINE)
        jobs: list[Callable[[], Any]] = []

        def in_thread(job: Callable[[], Any]) -> Deferred[Any]:
            jobs.append(job)
            return execute(job)

        checker = ScramChecker(KeysFile(str(tmp_path / "logins")), in_thread)

        assert login == success_of(authority(checker).check_password(user, password))
        assert 1 == len(jobs)

    def test_file_of_twisted(self, tmp_path: Path, success_of: Success) -> None:
        """
        Twisted's own ``file:`` does: a name and a password in each line.
        """
        (tmp_path / "users").write_text("ann:secret\nbob:pass:word\n")
        said = authority(checker_from_string(f"file:{tmp_path}/users"))

        assert "ann" == success_of(said.check_password("ann", "secret"))
        assert success_of(said.check_password("ann", "")) is None

    @pytest.mark.skipif(sys.version_info >= (3, 13), reason="the module crypt was there up to 3.12")
    @pytest.mark.filterwarnings("ignore:'(sp|)crypt|'spwd:DeprecationWarning")
    def test_unix(self, success_of: Success) -> None:
        """
        Twisted's checker of system users blocks, and so is asked in a thread.
        """
        jobs: list[Callable[[], Any]] = []

        def in_thread(job: Callable[[], Any]) -> Deferred[Any]:
            jobs.append(job)
            return execute(job)

        said = CheckerAuthority([checker_from_string("unix")], in_thread)

        assert success_of(said.check_password("no-such-user", "x")) is None
        assert 1 == len(jobs)


class TestKeys:
    def test_the_first_that_knows(self, tmp_path: Path, success_of: Success) -> None:
        """
        Of several files, the one that knows the name has the keys.
        """
        for user in ("ann", "bob"):
            (tmp_path / user).write_text(LINE.replace("ann", user))
        said = authority(
            *(checker_from_string(f"scram:{tmp_path}/{user}") for user in ("ann", "bob"))
        )

        assert success_of(said.stored_keys("bob")).is_known
        assert success_of(said.stored_keys("ann")).is_known
        assert not success_of(said.stored_keys("eve")).is_known

    def test_broken_meanwhile(self, tmp_path: Path, failure_of: Any) -> None:
        """
        A file that has become unreadable is "not now" to the client, and one line in the log.
        """
        (tmp_path / "logins").write_text(LINE)
        said = authority(checker_from_string(f"scram:{tmp_path}/logins"))
        (tmp_path / "logins").write_text("ann")

        with capturedLogs() as events:
            failure = failure_of(said.stored_keys("ann"), TemporaryFailure)

        assert FAILED_TO_CHECK == failure.value.reply
        # In one line: it is a mistake of the operator's, and no defect.
        (event,) = events
        assert "log_failure" not in event
        assert "line 1: expected user:SCRAM" in (formatEvent(event) or "")


class TestNames:
    @pytest.mark.parametrize(
        ("words", "name", "login"),
        [
            ("external", "ann", "ann"),
            ("external:ann, bob", "bob", "bob"),
            ("external:ann,bob", "eve", None),
            ("external:ann,bob", "Ann", None),
        ],
    )
    def test_believed(self, words: str, name: str, login: str | None, success_of: Success) -> None:
        """
        A name that TLS or the kernel has proven may log in, if it is among those that may.
        """
        assert login == success_of(authority(checker_from_string(words)).check_proven(name))

    def test_uid(self, success_of: Success) -> None:
        """
        A uid is the name of its user, if it has one.
        """
        said = authority()

        assert "root" == success_of(said.name_of(0))
        assert success_of(said.name_of(2**31 - 7)) is None


def test_what_is_there(tmp_path: Path) -> None:
    """
    Checkers say which mechanisms there are.
    """
    (tmp_path / "logins").write_text(LINE)
    scram = checker_from_string(f"scram:{tmp_path}/logins")

    for checkers, passwords, keys, proof in (
        ((), False, False, False),
        ((scram,), True, True, False),
        ((FilePasswordDB("x"),), True, False, False),
        ((checker_from_string("external"),), False, False, True),
    ):
        said = authority(*checkers)
        assert (passwords, keys, proof) == (
            said.takes_passwords,
            said.has_keys,
            said.takes_proof,
        )


def test_waits(no_result: Any, success_of: Success) -> None:
    """
    A failure is answered after so many seconds, and not before.
    """
    clock = Clock()
    waiting = authority().wait(clock, 4)
    clock.advance(3)
    no_result(waiting)
    clock.advance(1)
    assert success_of(waiting) is None


class TestWords:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (
                "scarm:x",
                "no checker is called 'scarm': did you mean 'scram'? installed: external, ",
            ),
            ("anonymous", "no checker is called 'anonymous': "),
            ("scram", "scram: write scram:PATH"),
            ("scram:/proc/nonexistent", "scram: /proc/nonexistent: No such file or directory"),
            ("file:/proc/nonexistent", "file: /proc/nonexistent cannot be read"),
            ("file", "file: PATH cannot be read"),
        ],
    )
    def test_mistake(self, words: str, said: str) -> None:
        """
        A mistake in the words behind ``--auth`` is told in one line.
        """
        with pytest.raises(ValueError) as raised:
            checker_from_string(words)
        assert str(raised.value).startswith(said)

    def test_broken_file(self, tmp_path: Path) -> None:
        """
        A line of the file that cannot be read is told with its number.
        """
        (tmp_path / "logins").write_text("ann:secret")

        with pytest.raises(ValueError, match=r"^scram: .*/logins: line 1: expected user:SCRAM"):
            checker_from_string(f"scram:{tmp_path}/logins")

    def test_memory(self, success_of: Success) -> None:
        """
        Twisted's own for trying out lets in whom it should, and nobody else.
        """
        said = authority(checker_from_string("memory:ann:secret:bob:word"))

        assert "ann" == success_of(said.check_password("ann", "secret"))
        assert success_of(said.check_password("ann", "word")) is None
        assert success_of(said.check_password("eve", "secret")) is None

    def test_help(self) -> None:
        """
        Those that AUTH can use, and no others.
        """
        said = describe_checkers()

        assert "\nscram:PATH\n    A file with a line for each user" in said
        assert "anonymous" not in said
