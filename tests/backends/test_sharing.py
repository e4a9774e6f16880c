"""
One copy for the recipients of two nodes.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.logger import capturedLogs, formatEvent

from lmtpsvc.backends.settings import from_words
from lmtpsvc.backends.sharing import Named, NotShared, Sharing, read_key
from lmtpsvc.envelope import Mailbox, Recipient, Sender
from lmtpsvc.interfaces import Sizes
from lmtpsvc.response_codes import ResponseCode
from lmtpsvc.testing import MemoryMessage, envelope

from ..rows import each_row

KEY = b"k" * 32
ANN, BOB = Mailbox("ann", "example.org"), Mailbox("bob", "example.org")
TEXT = b"Subject: hello\r\n\r\nbody\r\n"
NAMED = Named("/srv/mail/a/ann/new/1.2.3,S=5,W=6", Sizes(5, 6), "ab" * 32)


def received(
    by: str, token: str | None = None, text: bytes = TEXT, sender: bytes = b"", **more: Any
) -> MemoryMessage:
    """
    *text* as the node *by* got it, from a client that asks for codes and may bring a token.
    """
    parameters = {} if token is None else {"MAILDATA": token}
    trace = b"Return-Path: <" + sender + b">\r\nReceived: by " + by.encode() + b"\r\n"
    asked = evolve(
        envelope("ann@example.org"),
        sender=Sender(None, {"XRESPCODES": "MAILDATA"}),
        recipients=(Recipient(envelope("bob@example.org").recipients[0].address, parameters),),
    )
    message = MemoryMessage(trace + text, envelope=asked, trace=trace, **more)
    # The digest is that of the text alone.
    digest = MemoryMessage(text).digest
    return _WithDigest(message.text, envelope=asked, trace=trace, said=digest, **more)


class _WithDigest(MemoryMessage):
    def __init__(self, *args: Any, said: str, **more: Any) -> None:
        super().__init__(*args, **more)
        object.__setattr__(self, "said", said)

    @property
    def digest(self) -> str:
        return self.said  # type: ignore[attr-defined,no-any-return]  # set above


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def node(maildir: Callable[..., Any], key: Path) -> Any:
    """
    Two nodes that store in the same directory are as good as one.
    """
    return maildir(sharing=str(key))


def stored(root: Path, mailbox: Mailbox) -> Path:
    (path,) = (root / mailbox.domain / mailbox.user / "new").iterdir()
    return path


def delivered(node: Any, message: MemoryMessage, mailbox: Mailbox) -> Any:
    """
    What the delivery ends with.
    """
    (result,) = node.deliver(message, [mailbox])
    outcome: list[object] = []
    result.addBoth(outcome.append)
    return outcome[0]


def token_of(codes: Any) -> str:
    (code,) = codes
    assert isinstance(code, ResponseCode)
    assert "MAILDATA" == code.name
    return code.value


class TestToken:
    def test_there_and_back(self) -> None:
        """
        A token names the file to whoever has the key.
        """
        sharing = Sharing(KEY, "/nowhere")

        token = sharing.token(NAMED)

        assert NAMED == sharing.read(token)
        # It fits into a RCPT, and into a reply.
        assert len(token) < 300

    @each_row("position", range(0, 160, 7))
    def test_changed(self, position: int) -> None:
        """
        A token in which anything was changed is none.
        """
        sharing = Sharing(KEY, "/nowhere")
        token = sharing.token(NAMED)
        octets = bytearray(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        octets[position % len(octets)] ^= 1

        with pytest.raises(NotShared):
            sharing.read(urlsafe_b64encode(octets).rstrip(b"=").decode())

    @pytest.mark.parametrize("token", ["", "a", "ab", "abcd", "A" * 200])
    def test_nonsense(self, token: str) -> None:
        """
        What is no token names nothing.
        """
        with pytest.raises(NotShared):
            Sharing(KEY, "/nowhere").read(token)

    def test_another_key(self) -> None:
        """
        A token that was signed with another key names nothing.
        """
        with pytest.raises(NotShared, match="our key"):
            Sharing(b"x" * 32, "/nowhere").read(Sharing(KEY, "/nowhere").token(NAMED))


class TestKey:
    def test_read(self, key: Path) -> None:
        """
        The key is read from its file.
        """
        assert KEY == read_key(str(key))

    @pytest.mark.parametrize(
        ("octets", "mode", "said"),
        [(b"short", 0o600, "32 octets at least"), (KEY, 0o644, "chmod 600"), (None, 0, "No such")],
    )
    def test_mistakes(self, octets: bytes | None, mode: int, said: str, tmp_path: Path) -> None:
        """
        A key that is none is one line at the start.
        """
        path = tmp_path / "key"
        if octets is not None:
            path.write_bytes(octets)
            path.chmod(mode)

        with pytest.raises(ValueError, match=said) as caught:
            from_words("/srv/mail/{user}", {"sharing": str(path)})
        assert str(caught.value).startswith("sharing: ")

    def test_without_a_root(self, key: Path) -> None:
        """
        Where Maildirs are in home directories, there is nothing to share.
        """
        with pytest.raises(ValueError, match="sharing needs a directory"):
            from_words("{home}/Maildir", {"sharing": str(key)})


@pytest.mark.usefixtures("way")
class TestTwoNodes:
    def test_linked(self, node: Any, root: Path, leftovers: Callable[[], list[str]]) -> None:
        """
        The second node links the copy of the first, and gives it the name that fits its sizes.
        """
        token = token_of(delivered(node, received("node1"), ANN))
        again = token_of(delivered(node, received("the second node", token), BOB))

        first, second = stored(root, ANN), stored(root, BOB)
        assert first.stat().st_ino == second.stat().st_ino
        assert f",S={second.stat().st_size}," in f"{second.name},"
        assert b"by node1\n" in second.read_bytes()
        assert [] == leftovers()
        assert token != again

    @pytest.mark.parametrize(
        ("spoil", "why"),
        [
            (lambda path: path.unlink(), "No such file"),
            (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is not what was stored"),
            (lambda path: path.write_bytes(path.read_bytes()[:-2] + b"X\n"), "holds another text"),
        ],
        ids=["gone", "shorter", "changed"],
    )
    def test_not_there_any_more(
        self, spoil: Callable[[Path], object], why: str, node: Any, root: Path
    ) -> None:
        """
        A copy that is gone, or has changed, costs the saving only.
        """
        token = token_of(delivered(node, received("node1"), ANN))
        spoil(stored(root, ANN))

        with capturedLogs() as events:
            assert token_of(delivered(node, received("node2", token), BOB))

        assert b"by node2\n" in stored(root, BOB).read_bytes()
        assert any(why in (formatEvent(event) or "") for event in events)

    def test_another_text(self, node: Any, root: Path) -> None:
        """
        A token of one message is of no use for another, of the same size too.
        """
        token = token_of(delivered(node, received("node1"), ANN))

        delivered(node, received("node2", token, TEXT.replace(b"body", b"b0dy")), BOB)

        assert b"b0dy" in stored(root, BOB).read_bytes()

    def test_another_sender(self, node: Any, root: Path) -> None:
        """
        The same text from somebody else is stored with the name of that one.
        """
        token = token_of(delivered(node, received("node1"), ANN))
        message = received("node2", token, sender=b"eve@example.net")

        delivered(node, message, BOB)

        assert stored(root, BOB).read_bytes().startswith(b"Return-Path: <eve@example.net>\n")

    def test_a_file_of_somebody_else(self, node: Any, root: Path, tmp_path: Path) -> None:
        """
        Nobody without the key can name a file, and with it none that is not this text.
        """
        secret = tmp_path / "secret"
        secret.write_bytes(b"x" * 100)
        text = received("node2")
        for key in (b"x" * 32, KEY):
            named = Named(str(secret), Sizes(100, 100), text.digest)
            token = Sharing(key, str(root / ".spool")).token(named)
            delivered(node, received("node2", token), BOB)

        texts = [path.read_bytes() for path in (root / "example.org" / "bob" / "new").iterdir()]
        assert 2 == len(texts)
        assert not any(b"xxx" in text for text in texts)
        assert 1 == secret.stat().st_nlink

    def test_a_symbolic_link(self, node: Any, root: Path) -> None:
        """
        What a name points to is not followed.
        """
        token = token_of(delivered(node, received("node1"), ANN))
        path = stored(root, ANN)
        os.rename(path, path.with_name("elsewhere"))
        path.symlink_to("elsewhere")

        delivered(node, received("node2", token), BOB)

        assert b"by node2\n" in stored(root, BOB).read_bytes()

    def test_for_one_only(self, node: Any, root: Path) -> None:
        """
        A copy with a header of its own recipient is not offered, nor taken.
        """
        token = token_of(delivered(node, received("node1"), ANN))

        assert delivered(node, received("node2", token, is_for_all=False), BOB) is None
        assert b"by node2\n" in stored(root, BOB).read_bytes()

    def test_not_asked(self, node: Any) -> None:
        """
        Who does not ask is told nothing.
        """
        assert delivered(node, MemoryMessage(TEXT), ANN) is None
