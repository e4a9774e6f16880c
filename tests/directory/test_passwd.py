"""
System users.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from pwd import struct_passwd
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from lmtpsvc.directory import passwd
from lmtpsvc.directory.passwd import CACHE_SECONDS, PasswdDirectory, PasswdFactory
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import DeliveryError, PermanentFailure
from lmtpsvc.interfaces import IDirectory, IDirectoryFactory
from lmtpsvc.replies import CANNOT_LOOK_UP, NO_SUCH_USER, Reply
from lmtpsvc.specs import directory_from_string

from ..rows import each_row


def user(name: str, uid: int, home: str = "") -> struct_passwd:
    return struct_passwd((name, "x", uid, 100, "", home or f"/home/{name}", "/bin/sh"))


class System:
    """
    Users, and the names that were asked for.
    """

    def __init__(self) -> None:
        people = [("root", 0), ("www-data", 33), ("last", 999), ("ann", 1000), ("bob", 60000)]
        people += [("above", 60001), ("nobody", 65534), ("A.b_c-9", 2000)]
        self.users = {name: user(name, uid) for name, uid in people}
        # LDAP does not care for case.
        self.users["ANN"] = self.users["ann"]
        self.asked: list[str] = []
        self.error: Exception | None = None

    def look_up(self, name: str) -> struct_passwd | None:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        return self.users.get(name)


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(system: System, clock: Clock) -> PasswdDirectory:
    return PasswdDirectory(clock, execute, look_up=system.look_up)


@pytest.fixture
def ask(success_of: Callable[..., Any]) -> Callable[..., Any]:
    """
    ``ask(directory, "ann")``: the mailbox of Ann, or the reply that refuses her.
    """

    async def asked(directory: PasswdDirectory, mailbox: Mailbox) -> Mailbox | Reply:
        try:
            answer = directory.resolve(mailbox)
            (found,) = answer if isinstance(answer, Sequence) else await answer
        except DeliveryError as error:
            return error.reply
        return found

    return lambda directory, name, domain="example.org": success_of(
        asked(directory, Mailbox(name, domain, "lists"))
    )


def test_interface(directory: PasswdDirectory) -> None:
    """
    It is a directory.
    """
    verifyObject(IDirectory, directory)
    verifyObject(IDirectoryFactory, PasswdFactory())


def test_known(directory: PasswdDirectory, ask: Callable[..., Any]) -> None:
    """
    A mailbox has what the system knows of its user, in the system's spelling.
    """
    ann = Mailbox("ann", "example.org", "lists", home="/home/ann", uid=1000, gid=100)

    assert ann == ask(directory, "ann")
    assert ann == ask(directory, "ANN")


@pytest.mark.parametrize("name", ["bob", "A.b_c-9"])
def test_also_known(directory: PasswdDirectory, ask: Callable[..., Any], name: str) -> None:
    """
    Uids up to 60,000 and names with some punctuation are those of people.
    """
    assert name == ask(directory, name).user


@pytest.mark.parametrize("name", ["cid", "root", "www-data", "last", "above", "nobody"])
def test_unknown(directory: PasswdDirectory, ask: Callable[..., Any], name: str) -> None:
    """
    Root, services and nobody are no users, as far as mail is concerned.
    """
    assert NO_SUCH_USER == ask(directory, name)


@pytest.mark.parametrize(
    "name", ["", "-ann", ".", "..", "a/b", "a b", "a@b", "a\\b", "a\0b", "a\n", "é", "a" * 65, "$x"]
)
def test_odd_names(
    directory: PasswdDirectory, system: System, ask: Callable[..., Any], name: str
) -> None:
    """
    What cannot be the name of a user never reaches the name service.
    """
    assert NO_SUCH_USER == ask(directory, name)
    assert [] == system.asked


def test_domains(system: System, ask: Callable[..., Any]) -> None:
    """
    The same users may live in several domains, and in no others.
    """
    directory = PasswdDirectory(
        Clock(),
        execute,
        domains=["example.org", "Example.NET", "bücher.example"],
        look_up=system.look_up,
    )

    assert "ann" == ask(directory, "ann", "example.net").user
    assert "example.org" == ask(directory, "ann", "example.org").domain
    assert NO_SUCH_USER == ask(directory, "ann", "example.com")
    for form in ("bücher.example", "xn--bcher-kva.example"):
        assert "ann" == ask(directory, "ann", form).user


@pytest.mark.parametrize("name", ["ann", "cid", "root"])
def test_cached(
    directory: PasswdDirectory, system: System, clock: Clock, ask: Callable[..., Any], name: str
) -> None:
    """
    An answer, whichever it is, is kept for ten seconds.
    """
    first = ask(directory, name)
    clock.advance(CACHE_SECONDS - 0.1)
    assert first == ask(directory, name)
    assert 1 == len(system.asked)

    clock.advance(0.1)
    assert first == ask(directory, name)
    assert 2 == len(system.asked)


@pytest.mark.parametrize(("word", "kept"), [("2m", 120), ("0", 0), ("0.5s", 0.5)])
def test_cached_as_long_as_one_likes(
    system: System,
    clock: Clock,
    ask: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    word: str,
    kept: float,
) -> None:
    """
    The operator says how long, or not at all.
    """
    directory = directory_from_string(clock, f"passwd:cache={word}")
    monkeypatch.setattr(directory, "_in_thread", execute)
    monkeypatch.setattr(directory, "_look_up", system.look_up)
    ask(directory, "ann")
    if kept:
        clock.advance(kept - 0.1)
        ask(directory, "ann")
        assert 1 == len(system.asked)
        clock.advance(0.1)
    ask(directory, "ann")

    assert 2 == len(system.asked)


def test_cache_is_bounded(
    directory: PasswdDirectory, system: System, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Somebody who tries names does not fill the memory, neither quickly nor slowly.
    """
    monkeypatch.setattr(passwd, "MAX_CACHED", 10)

    def try_name(name: str) -> None:
        answer = directory.resolve(Mailbox(name, "example.org"))
        Deferred.fromCoroutine(answer).addErrback(lambda _: None)  # type: ignore[arg-type]

    for number in range(50):
        try_name(f"quick{number}")
        assert len(directory._cache) <= 10
    clock.advance(CACHE_SECONDS)
    for number in range(50):
        try_name(f"slow{number}")
        clock.advance(CACHE_SECONDS / 2)
    assert len(directory._cache) <= 3


def test_unknowable(directory: PasswdDirectory, system: System, ask: Callable[..., Any]) -> None:
    """
    When the system cannot say, the client tries again, and so does the directory.
    """
    system.error = OSError(5, "Input/output error")
    assert CANNOT_LOOK_UP == ask(directory, "ann")

    system.error = None
    assert "ann" == ask(directory, "ann").user


def test_in_a_thread(
    system: System, no_result: Callable[..., None], success_of: Callable[..., Any]
) -> None:
    """
    The name service may block, and does so elsewhere.
    """
    calls: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def in_thread(function: Callable[[], Any], /) -> Deferred[Any]:
        calls.append((Deferred(), function))
        return calls[-1][0]

    directory = PasswdDirectory(Clock(), in_thread, look_up=system.look_up)
    answer: Deferred[Any] = Deferred.fromCoroutine(
        directory.resolve(Mailbox("ann", "example.org"))  # type: ignore[arg-type]
    )
    no_result(answer)
    assert [] == system.asked

    ended, function = calls.pop()
    ended.callback(function())
    assert "ann" == success_of(answer)[0].user


class TestTheFactory:
    def test_options(self, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any]) -> None:
        """
        With min_uid=0, even root gets mail.
        """
        text = "passwd:min_uid=0:max_uid=4294967295:domain=example.org, example.net"
        directory = directory_from_string(Clock(), text)
        assert isinstance(directory, PasswdDirectory)
        monkeypatch.setattr(directory, "_in_thread", execute)
        me = pwd.getpwuid(os.getuid())

        assert me.pw_dir == ask(directory, me.pw_name, "example.net").home
        with pytest.raises(PermanentFailure):
            directory.resolve(Mailbox(me.pw_name, "example.com"))

    @each_row(
        ("text", "reason"),
        [
            ("passwd:x", f"passwd: expected {PasswdFactory.synopsis}"),
            ("passwd:uid=1", f"passwd: expected {PasswdFactory.synopsis}"),
            ("passwd:min_uid=ann", "passwd: min_uid=ann is not a number"),
            ("passwd:max_uid=-1", "passwd: max_uid=-1 is not a number"),
            ("passwd:min_uid=", "passwd: min_uid= is not a number"),
            ("passwd:cache=x", "passwd: cache: 'x' is not a time; write 300, 90s, 5m or 1h"),
            ("passwd:min_uid=70000", "passwd: min_uid=70000 is larger than max_uid=60000"),
            (
                "passwd:domain=",
                "passwd: domain= has an empty name; write domain=example.org,example.net",
            ),
            (
                "passwd:domain=a,,b",
                "passwd: domain= has an empty name; write domain=example.org,example.net",
            ),
        ],
    )
    def test_mistakes(self, text: str, reason: str) -> None:
        """
        Each mistake is told when the service starts.
        """
        with pytest.raises(ValueError) as caught:
            directory_from_string(Clock(), text)

        assert reason == str(caught.value)
