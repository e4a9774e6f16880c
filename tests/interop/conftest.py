"""
The service under test and its peers, each for as long as a test, or a module, needs it.

Everything listens on loopback or on UNIX sockets, lives under one temporary directory, and is
stopped at the end, whatever happened.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from ..certificates import Authority
from ..running import run
from . import samples
from .dovecot import Dovecot
from .service import CONVERSING, Service, running_service
from .store import Store

Unavailable = Callable[[str], NoReturn]
Peer = Callable[[str], Path]


@pytest.fixture(scope="session")
def real_mail(unavailable: Unavailable) -> list[samples.Sample]:
    """
    The messages that CPython and SpamAssassin test themselves with.
    """
    return [
        *(samples.cpython() or unavailable("Python's own test suite (test.test_email)")),
        *(samples.spamassassin() or unavailable("sample mail of Debian's spamassassin")),
    ]


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    """
    A directory that other accounts may enter, with a name short enough for UNIX sockets.
    """
    directory = Path(tempfile.mkdtemp(prefix="lmtp-interop-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def service(top: Path) -> Iterator[Service]:
    """
    The service, with mailboxes for ann, bob, cat and sender.
    """
    with running_service(top) as service:
        yield service


@pytest.fixture(scope="module")
def conversing(top: Path) -> Iterator[Service]:
    """
    The service, with all that the conversations of tests/transcripts ask for.
    """
    (top / "certificates").mkdir()
    pair = Authority(top / "certificates").sign()
    tls = ["--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key)]
    with running_service(top, CONVERSING, [*tls, "--dsn", "relayed"]) as service:
        yield service


@pytest.fixture(scope="module")
def exim_program(
    top: Path, peer: Peer, unavailable: Unavailable, pytestconfig: pytest.Config
) -> Path:
    """
    Exim as installed, or else unpacked from Debian's package: it cannot be installed beside Postfix.
    """
    try:
        return peer("exim4")
    except (pytest.skip.Exception, pytest.fail.Exception):
        pass
    # None with `-p no:cacheprovider`.
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)
    kept = top if cache is None else cache.mkdir("exim4")
    if not list(kept.glob("*.deb")):
        words = [str(peer("apt-get")), "-o", "APT::Sandbox::User=root", "download"]
        run([*words, "exim4-daemon-light"], cwd=kept)
    packages = list(kept.glob("*.deb"))
    if not packages:
        unavailable("Debian's package exim4-daemon-light")
    run([str(peer("dpkg")), "-x", str(packages[0]), str(top / "exim4")])
    return top / "exim4" / "usr" / "sbin" / "exim4"


@pytest.fixture(scope="module")
def dovecot(top: Path, peer: Peer) -> Iterator[Callable[[Store], Dovecot]]:
    """
    Start a Dovecot that serves a store.
    """
    started: list[Dovecot] = []

    def dovecot(store: Store) -> Dovecot:
        directory = top / f"dovecot{len(started)}"
        account = pwd.getpwuid(os.geteuid() or pwd.getpwnam("nobody").pw_uid)
        store.give_to(account.pw_uid, account.pw_gid)
        server = Dovecot(
            peer("dovecot"),
            directory,
            store,
            account.pw_name,
            account.pw_uid,
            account.pw_gid,
            grp.getgrgid(account.pw_gid).gr_name,
        )
        started.append(server)
        server.start()
        return server

    try:
        yield dovecot
    finally:
        for server in started:
            server.stop()
