"""
Every conversation, held with the service in memory: whole, octet by octet, and cut at random.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lmtpsvc.session.server import ServerSession

from ..rows import each_row
from .holding import hold
from .memory import Cut, MemoryClient, at_random, by_octet, whole
from .notation import Conversation
from .reading import read_folder

CONVERSATIONS = read_folder(Path(__file__).parent)
CUTS = {"whole": whole, "octets": by_octet}


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Where texts are put that are large; nobody has anything there when a conversation is over.
    """
    return tmp_path_factory.mktemp("spool")


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda each: each.name)
def test_as_written(conversation: Conversation, spool: Path) -> None:
    """
    The server answers as it is written, however the octets come.
    """
    cuts: list[tuple[str, Cut]] = [
        *CUTS.items(),
        *((f"random {n}", at_random(f"{conversation.name} {n}")) for n in range(3)),
    ]
    for name, cut in cuts[:1] if conversation.in_one_piece else cuts:
        client = MemoryClient(conversation, cut, spool)

        differences = hold(conversation, client)

        assert differences == [], f"{name}: {'; '.join(map(str, differences))}"
        if conversation.stored is not None:
            assert list(conversation.stored) == client.world.stored, name


_transaction_id = re.compile(rb"\b[0-9a-f]{16}\b")


@each_row("conversation", CONVERSATIONS, ids=lambda each: each.name)
def test_short_way(
    conversation: Conversation, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What comes together may be taken together: octet by octet, the answers are those of the long way.
    """
    ways = []
    with monkeypatch.context() as patch:
        for _ in ("short", "long"):
            client = MemoryClient(conversation, whole, spool)
            hold(conversation, client)
            ways.append((_transaction_id.sub(b"ID", client.heard), client.world.stored))
            patch.setattr(ServerSession, "take_envelopes", lambda _: None)
    short, long = ways

    assert short == long


def test_there_are_many() -> None:
    """
    Conversations of every kind: a folder that cannot be found is no success.
    """
    assert len(CONVERSATIONS) > 200
