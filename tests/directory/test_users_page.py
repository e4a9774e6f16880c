"""
What docs/users.md says of files and queries is so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no types
from sqlalchemy import create_engine, make_url
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from lmtpsvc.directory.lines import parse
from lmtpsvc.directory.query import DRIVERS, Query
from lmtpsvc.directory.rows import mailboxes_from
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure, TemporaryFailure
from lmtpsvc.quota import Quota, quota_of

PAGE = (Path(__file__).parents[2] / "docs" / "users.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    """
    The example that is called *name*.
    """
    [found] = re.findall(rf"<!-- test: {name} -->\n```\w*\n(.*?)```\n", PAGE, re.DOTALL)
    return str(found)


def test_file() -> None:
    """
    The users file has no mistake, and means what its comments say.
    """
    table = parse(example("users").encode())

    def quotas(address: str) -> list[tuple[str, Quota | None]]:
        user, _, domain = address.partition("@")
        return [(str(found), quota_of(found)) for found in table.resolve(Mailbox(user, domain))]

    ann = ("ann@example.org", Quota(1 << 30))
    bob = ("bob@example.org", Quota(1 << 30, 10_000))
    assert [ann] == quotas("ann@example.org") == quotas("anybody@example.net")
    assert [ann, bob] == quotas("staff@example.org")
    assert [("dan@example.org", Quota(1 << 30)), ann] == quotas("dan@example.org")
    assert [("eve@example.com", Quota(100 << 20))] == quotas("eve@example.com")
    assert [("ann@example.com", Quota(5 << 30))] == quotas("ann@example.com")


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_of_your_own(tmp_path: Path) -> None:
    """
    The directory that the page shows asks its program, and knows a no from a failure.
    """
    [source] = re.findall(r"^```python \S+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(source, names)
    program = tmp_path / "is-staff"
    program.write_text('#!/bin/sh\ncase "$2" in ann) exit 0;; eve) exit 2;; *) exit 1;; esac\n')
    program.chmod(0o755)
    directory = names["staff"].build(reactor, str(program), quota="1000")

    (ann,) = await Deferred.fromCoroutine(directory.resolve(Mailbox("ann", "example.org")))

    assert Quota(1000) == quota_of(ann)
    for name, refused in (("bob", PermanentFailure), ("eve", TemporaryFailure)):
        with pytest.raises(refused):
            await Deferred.fromCoroutine(directory.resolve(Mailbox(name, "example.org")))


#: Who is in the tables.
PEOPLE = """
INSERT INTO users VALUES ('ann', 'example.org', 1000, NULL), ('bob', 'example.org', NULL, 'archive');
INSERT INTO aliases VALUES
    ('staff', 'example.org', 'ann', 'example.org'), ('staff', 'example.org', 'bob', 'example.org'),
    ('', 'example.net', 'bob', 'example.org'), ('', 'example.org', 'ann', 'example.org');
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """
    The tables of the page, with some people, in a database of each kind.
    """
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('users')}/users.db"
    else:
        url = request.getfixturevalue(request.param).new()
    engine = create_engine(make_url(url).set(drivername=DRIVERS.get(request.param, "sqlite")))
    with engine.begin() as connection:
        for statement in (example("tables") + PEOPLE).split(";")[:-1]:
            connection.exec_driver_sql(re.sub("--.*", "", statement))
    engine.dispose()
    return url


@pytest.mark.parametrize(
    ("name", "address", "found"),
    [
        ("simple query", "ann@example.org", ["ann@example.org 1000 None"]),
        ("simple query", "staff@example.org", []),
        ("whole query", "ann@example.org", ["ann@example.org 1000 None"]),
        (
            "whole query",
            "staff@example.org",
            ["ann@example.org 1000 None", "bob@example.org None archive"],
        ),
        ("whole query", "bob@example.org", ["bob@example.org None archive"]),
        ("whole query", "nobody@example.org", ["ann@example.org 1000 None"]),
        ("whole query", "anybody@example.net", ["bob@example.org None archive"]),
        ("whole query", "anybody@example.com", []),
    ],
)
def test_queries(url: str, name: str, address: str, found: list[str]) -> None:
    """
    The queries find users, aliases and catch-alls, the most exact alone.
    """
    query = Query(url, example(name), 1, 5)
    user, _, domain = address.partition("@")
    asked = Mailbox(user, domain)
    mailboxes = mailboxes_from(query.rows(asked), asked)
    query.close()

    assert found == sorted(
        f"{mailbox} {mailbox.attributes.get('quota_octets')} {mailbox.attributes.get('backend')}"
        for mailbox in mailboxes
    )
