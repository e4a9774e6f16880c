"""
``maildirsize`` is kept by us and by Dovecot, and both read what the other has written.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import pytest
from attrs import define

from lmtpsvc.backends.maildirsize import Sums, read, recount
from lmtpsvc.quota import Quota

from .lmtp import Client
from .service import DOMAIN, Service
from .store import Store

ANN, BOB, CAT = (f"{user}@{DOMAIN}" for user in ("ann", "bob", "cat"))

QUOTA: Final = Quota(1 << 20, 20)

TEXT: Final = b"Subject: x\r\n\r\n" + b"x" * 1022 + b"\r\n"

#: Beside the option for everybody, the users file has Bob's.
USERS: Final = f"{ANN}\n{BOB} quota=10K\n{CAT} quota=0\n"

CONFIGURATION: Final = """\
base_dir = {top}/run
log_path = {top}/log
ssl = no
mail_location = maildir:{inbox}
mail_plugins = quota
first_valid_uid = 1
plugin {{
  quota = maildir:User quota
  quota_rule = *:bytes=1048576:messages=20
}}
"""


@pytest.fixture(scope="module")
def service(top: Path) -> Iterator[Service]:
    """
    A service that keeps quotas.
    """
    directory = top / "quota"
    directory.mkdir(mode=0o755)
    service = Service(directory, [], {"quota": "1M,20"})
    (directory / "users").write_text(USERS)
    try:
        service.start()
        yield service
    finally:
        service.stop()
    assert "Traceback" not in service.log, service.log


@define
class Doveadm:
    """
    Dovecot's tool on the mailbox *inbox*, as whoever owns it.
    """

    program: Path
    top: Path
    inbox: Path
    store: Store
    uid: int

    def __call__(self, *words: str) -> str:
        """
        What it says.
        """
        configuration = self.top / "dovecot.conf"
        configuration.write_text(CONFIGURATION.format(top=self.top, inbox=self.inbox))
        account = pwd.getpwuid(self.uid)
        self.store.give_to(account.pw_uid, account.pw_gid)
        Store(self.top).give_to(account.pw_uid, account.pw_gid)
        demoted = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [self.program, "-c", configuration, "-f", "tab", *words],
            env={"PATH": os.environ["PATH"], "USER": account.pw_name, "HOME": str(self.top)},
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
            **(demoted if os.geteuid() == 0 else {}),  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sums(self) -> tuple[int, int]:
        """
        What it takes to be there: KiB begun, and messages.
        """
        lines = [line.split("\t") for line in self("quota", "get").splitlines()[1:]]
        values = {kind: int(value) for _, kind, value, *_ in lines}
        return values["STORAGE"], values["MESSAGE"]


@pytest.fixture
def doveadm(
    top: Path,
    service: Service,
    peer: Callable[[str], Path],
    unavailable: Callable[[str], NoReturn],
) -> Doveadm:
    """
    Dovecot's tool on Ann's mailbox.
    """
    program = peer("doveadm")
    directory = top / "doveadm"
    directory.mkdir(exist_ok=True)
    owner = os.geteuid() or pwd.getpwnam("nobody").pw_uid
    inbox = service.store.root / DOMAIN / "ann"
    return Doveadm(program, directory, inbox, service.store, owner)


def kib(octets: int) -> int:
    """
    As doveadm shows it.
    """
    return -(-octets // 1024)


def there(service: Service, user: str = "ann", quota: Quota = QUOTA) -> Sums:
    """
    What really is in a mailbox.
    """
    return recount(str(service.store.root / DOMAIN / user), quota, 0o600, store=False)


def said(service: Service, user: str = "ann") -> Sums:
    """
    What the file says.
    """
    record = read(str(service.store.root / DOMAIN / user))
    assert record is not None
    return record.sums


def send(service: Service, *recipients: str, times: int = 1) -> list[str]:
    """
    What each recipient of the last transaction was told in the end, the codes only.
    """
    told: list[str] = []
    with Client(service.tcp) as client:
        for _ in range(times):
            assert client.command("MAIL FROM:<sender@example.net>").startswith("250 ")
            told = [client.command(f"RCPT TO:<{recipient}>") for recipient in recipients]
            accepted = [number for number, line in enumerate(told) if line.startswith("250 ")]
            if not accepted:
                client.command("RSET")
                continue
            assert client.command("DATA").startswith("354 ")
            lines = [client.command(TEXT.decode() + "."), *(client.reply() for _ in accepted[1:])]
            for number, line in zip(accepted, lines, strict=True):
                told[number] = line
    return [line[:9] for line in told]


def test_agree(service: Service, doveadm: Doveadm) -> None:
    """
    What Dovecot says is there is what we have written, and it leaves our file alone.
    """
    assert ["250 2.0.0"] == send(service, ANN, times=5)
    file = doveadm.inbox / "maildirsize"
    before = file.read_text()

    octets, messages = there(service)
    assert 5 == messages
    assert (kib(octets), 5) == doveadm.sums()
    assert said(service) == (octets, messages)
    assert before == file.read_text()


def test_both_write(service: Service, doveadm: Doveadm) -> None:
    """
    Dovecot removes mail and we add some, in turns, and the sums stay right.
    """
    for _ in range(3):
        send(service, ANN, times=2)
        doveadm("expunge", "mailbox", "INBOX", "1")
        assert there(service) == said(service)
        octets, messages = said(service)
        assert (kib(octets), messages) == doveadm.sums()
    assert 8 == said(service).messages


def test_counted_by_dovecot(service: Service, doveadm: Doveadm) -> None:
    """
    A file that Dovecot has made by counting is one that we go on with.
    """
    doveadm("quota", "recalc")
    assert there(service) == said(service)
    lines = len((doveadm.inbox / "maildirsize").read_text().splitlines())

    send(service, ANN)
    assert lines + 1 == len((doveadm.inbox / "maildirsize").read_text().splitlines())
    assert there(service) == said(service)


def test_full(service: Service, doveadm: Doveadm) -> None:
    """
    Where there is no room for us, there is none for Dovecot; once it has removed something, there
    is room again.
    """
    while send(service, ANN) == ["250 2.0.0"]:
        assert there(service).messages <= QUOTA.messages
    assert ["452 4.2.2"] == send(service, ANN)
    assert QUOTA.messages == there(service).messages == doveadm.sums()[1]

    doveadm("expunge", "mailbox", "INBOX", "1")
    assert ["250 2.0.0"] == send(service, ANN)
    assert there(service) == said(service)


def test_size_at_rcpt(service: Service) -> None:
    """
    With SIZE, a message without room is refused at RCPT, for each recipient on his own.
    """
    with Client(service.tcp) as client:
        assert client.command("MAIL FROM:<> SIZE=20000").startswith("250 ")
        assert client.command(f"RCPT TO:<{BOB}>").startswith("452 4.2.2 ")
        assert client.command(f"RCPT TO:<{CAT}>").startswith("250 ")


def test_one_of_three(service: Service) -> None:
    """
    Who is over quota does not touch the others.
    """
    assert ["250 2.0.0"] == send(service, BOB, times=5)
    for _ in range(5):
        outcome = send(service, CAT, BOB)
    assert ["250 2.0.0", "452 4.2.2"] == outcome
    assert there(service, "bob").octets <= 10 << 10
    # No limit, no file.
    assert not (service.store.root / DOMAIN / "cat" / "maildirsize").exists()
