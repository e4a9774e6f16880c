"""
``bücher.example`` and ``xn--bcher-kva.example`` are one domain: one user, one route, one mailbox.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from lmtpsvc import replies
from lmtpsvc.backends.maildir import MaildirBackend
from lmtpsvc.config import structure
from lmtpsvc.delivery.routing import Routing
from lmtpsvc.envelope import Address, Mailbox
from lmtpsvc.wiring.parts import Parts, make_parts

U, A = "bücher.example", "xn--bcher-kva.example"
#: Letters and accents apart, and in upper case.
FORMS = (U, A, "bu\u0308cher.example", "BÜCHER.EXAMPLE")


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Parts]:
    monkeypatch.chdir(tmp_path)

    def parts(**said: Any) -> Parts:
        return make_parts(
            structure({"hostname": "mx.example.org", "backend": "maildir:mail", **said}), reactor
        )

    return parts


def resolve(parts: Parts, local: str, domain: str) -> Any:
    rules, clock = parts.rules, Clock()
    return Routing(parts.directory, parts.backend, rules, clock, 60).resolve(Address(local, domain))


@pytest.mark.parametrize(("listed", "said"), list(product(FORMS, FORMS)))
def test_users_file(
    listed: str, said: str, parts: Callable[..., Parts], tmp_path: Path, success_of: Any
) -> None:
    """
    A file of users may have it in any form, also as a target and for a whole domain.
    """
    (tmp_path / "users").write_text(f"ann@{listed}\nstaff@{listed}: ann@{listed}\n")
    made = parts(users=f"file:{tmp_path}/users")
    (tmp_path / "everybody").write_text(f"@{listed}\n")
    everybody = parts(users=f"file:{tmp_path}/everybody")

    assert (Mailbox("ann", A),) == success_of(resolve(made, "ann", said))
    assert (Mailbox("ann", A),) == success_of(resolve(made, "staff", said))
    assert (Mailbox("ann", A),) == success_of(resolve(everybody, "ann", said))


def test_listed_in_both_forms(parts: Callable[..., Parts], tmp_path: Path) -> None:
    """
    Whoever is listed in both forms, and otherwise, is told of it.
    """
    (tmp_path / "users").write_text(f"ann@{U}\nann@{A} quota=1G\n")

    with pytest.raises(Exception, match=rf"line 2: ann@{re.escape(A)} stands on line 1"):
        parts(users=f"file:{tmp_path}/users")


@pytest.mark.parametrize(("listed", "said"), list(product((U, A), FORMS)))
def test_routes(listed: str, said: str, parts: Callable[..., Parts], success_of: Any) -> None:
    """
    A route to the domain, to an address in it, or to those below it, is found in any form.
    """
    made = parts(
        users="any",
        routes=[
            {"to": [listed], "backend": "maildir:domain"},
            {"to": [f"ann@{listed}"], "backend": "maildir:ann"},
            {"to": [f"*.{listed}"], "backend": "maildir:below"},
        ],
    )

    def goes_to(local: str, domain: str) -> str:
        (mailbox,) = success_of(resolve(made, local, domain))
        return made.backend.destination(mailbox).name

    assert "maildir:domain" == goes_to("bob", said)
    assert "maildir:ann" == goes_to("ann", said)
    assert "maildir:below" == goes_to("ann", f"list.{said}")
    assert "maildir:mail" == goes_to("ann", "buecher.example")


def test_one_maildir(parts: Callable[..., Parts], tmp_path: Path, success_of: Any) -> None:
    """
    All forms lead into the same directory.
    """
    made = parts(users="any", backend=f"maildir:{tmp_path}/mail/{{domain}}/{{user}}")
    backend = next(iter(made.backends.values()))
    assert isinstance(backend, MaildirBackend)

    places = {
        backend.where(mailbox)
        for domain in FORMS
        for mailbox in success_of(resolve(made, "ann", domain))
    }

    assert {f"{tmp_path}/mail/{A}/ann"} == places


class TestSQL:
    """
    A directory in a database, whose rows have one form or the other.
    """

    @pytest.fixture
    def ask(self, parts: Callable[..., Parts], tmp_path: Path) -> Callable[..., Any]:
        def ask(query: str, local: str, domain: str) -> Deferred[Any]:
            (tmp_path / "users.sql").write_text(query)
            made = parts(users=f"sql:sqlite:///{tmp_path}/users.db:query=@{tmp_path}/users.sql")
            service = IService(made.directory)

            async def asked() -> Any:
                service.startService()
                try:
                    return await resolve(made, local, domain)
                finally:
                    await service.stopService()

            return ensureDeferred(asked())

        with closing(sqlite3.connect(tmp_path / "users.db")) as database:
            database.execute("CREATE TABLE users (user TEXT, domain TEXT, goes_to TEXT)")
            database.executemany(
                "INSERT INTO users VALUES (?, ?, ?)",
                [("ann", U, f"ann@{U}"), ("bob", A, f"bob@{A}"), ("cid", "example.org", f"c@{U}")],
            )
            database.commit()
        return ask

    @pytest.mark.parametrize(("local", "said"), list(product(("ann", "bob"), FORMS)))
    def test_either(self, local: str, said: str, ask: Any) -> Any:
        """
        It is found in whichever form it is there.
        """
        query = "SELECT user FROM users WHERE user = :user AND domain = :domain"

        return ask(query, local, said).addCallback(lambda found: _same((Mailbox(local, A),), found))

    def test_answer(self, ask: Any) -> Any:
        """
        What it says is a domain may be in either form, too.
        """
        query = "SELECT goes_to AS address FROM users WHERE user = :user"

        return ask(query, "cid", "example.org").addCallback(
            lambda found: _same((Mailbox("c", A),), found)
        )

    def test_unknown(self, ask: Any) -> Any:
        """
        Nobody is nobody, in either form.
        """
        query = "SELECT user FROM users WHERE user = :user AND domain = :domain"

        return ask(query, "dan", U).addErrback(
            lambda failure: _same(replies.NO_SUCH_USER, failure.value.reply)
        )


def _same(expected: object, found: object) -> None:
    assert expected == found
