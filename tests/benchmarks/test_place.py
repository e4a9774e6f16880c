from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.disk import in_batches, one_by_one
from benchmarks.ledger import DOMAIN
from benchmarks.mailboxes import fill, make
from benchmarks.place import LARGE, Place, empty
from benchmarks.servers import lmtpsvc, named
from benchmarks.workloads import Workload


def test_fresh(tmp_path: Path) -> None:
    """
    Every run has a directory of its own.
    """
    place = Place(tmp_path)

    first, second = place.fresh(), place.fresh()

    assert first != second
    assert list(first.iterdir()) == []


def test_empty(tmp_path: Path) -> None:
    """
    Large files give their room back, and stay.
    """
    (tmp_path / "large").write_bytes(b"x" * LARGE)
    (tmp_path / "small").write_bytes(b"x")

    empty(tmp_path)

    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {
        "large": 0,
        "small": 1,
    }


def test_mailboxes(tmp_path: Path) -> None:
    """
    Mailboxes are made, empty or full.
    """
    make(tmp_path, range(3), None)
    fill(tmp_path, 2, 10, None)

    assert sorted(path.name for path in (tmp_path / DOMAIN).iterdir()) == [
        *("u000000", "u000001", "u000002")
    ]
    assert len(list((tmp_path / DOMAIN / "u000002" / "new").iterdir())) == 10


@pytest.mark.parametrize("limit", [one_by_one, in_batches])
def test_limit(limit: object, tmp_path: Path) -> None:
    """
    What measures the disk leaves a message for each recipient, and nothing in ``tmp/``.
    """
    assert callable(limit)
    workload = Workload("few", sessions=2, recipients=3, users=range(5), most=4)

    rate = limit(tmp_path, workload, 60.0)

    assert rate > 0
    assert len(list((tmp_path / DOMAIN).glob("*/new/*"))) == 4 * 3
    assert list((tmp_path / DOMAIN).glob("*/tmp/*")) == []


def test_our_words(tmp_path: Path) -> None:
    """
    A backend among the words takes the place of Maildirs.
    """
    maildirs = lmtpsvc("--workers", "2")(tmp_path, tmp_path / "mail", 24)
    discard = lmtpsvc("--backend", "discard")(tmp_path, tmp_path / "mail", 24)

    assert f"maildir:{tmp_path}/mail/{{domain}}/{{user}}" in maildirs
    assert not any("maildir:" in word for word in discard)


def test_named(tmp_path: Path) -> None:
    """
    A server of somebody's own, with or without a store.
    """
    sink, store = named("sink=sink '{port} 1'"), named("mine=run {port} {store}")

    assert sink.command(tmp_path, tmp_path / "mail", 24) == ["sink", "24 1"]
    assert not sink.keeps
    assert store.command(tmp_path, tmp_path, 24) == ["run", "24", str(tmp_path)]
    assert store.keeps
