"""
One copy for the recipients of several nodes: what a reply says about a stored file, and what another
node that shares the storage does with it.

A token names the file, and is signed with a key that the nodes share, so that nobody else can name
one.  Whoever gets one has received the whole text himself: what the file holds behind its trace
headers is compared with it, octet by octet, before it is linked, and so is who has sent it.  So a
token that is wrong, or a file that has changed since, costs the saving and nothing else.
"""

from __future__ import annotations

import hmac
import os
import stat
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from contextlib import closing
from email.message import EmailMessage
from typing import BinaryIO, Final

from attrs import frozen
from twisted.logger import Logger
from zope.interface import implementer

from ..envelope import Envelope, Mailbox, Recipient
from ..interfaces import IMessage, LineEnding, Sizes
from ..response_codes import MAILDATA, ResponseCode
from .files import CHUNK, remove

_log = Logger()

#: Octets of a key, at least.
MIN_KEY: Final = 32

_VERSION: Final = 1
# Version, digest of the text, sizes of the file; its path follows.
_FIXED: Final = struct.Struct(">B32sQQ")
_MAC_SIZE: Final = 32


class NotShared(Exception):
    """
    There is no file to link; the text is for the log.
    """


def read_key(path: str) -> bytes:
    """
    The key that all nodes have, from a file that nobody else may read.

    Raises:
        ValueError: With one line that says what is wrong with it.
    """
    try:
        with open(path, "rb") as file:
            key = file.read(4096).strip()
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if mode & 0o007:
        raise ValueError(f"{path}: others may read or write it; chmod 600 it")
    if len(key) < MIN_KEY:
        raise ValueError(
            f"{path}: expected a key of {MIN_KEY} octets at least; make one with"
            f" openssl rand -hex 32"
        )
    return key


@frozen
class Named:
    """
    What a token says: the file, its sizes, and the digest of the text in it.
    """

    path: str
    sizes: Sizes
    digest: str


class Sharing:
    """
    Makes tokens and takes them; all with one *key*.  *directory*, on the file system of the mail, is
    where a file is held while it is linked.  In worker threads.
    """

    def __init__(self, key: bytes, directory: str) -> None:
        self._key, self._directory = key, directory

    def code(self, named: Named) -> ResponseCode:
        """
        What the reply says about a stored file.
        """
        return ResponseCode(MAILDATA, self.token(named))

    def token(self, named: Named) -> str:
        """
        A word for a file that only a node with the same key can make or read.
        """
        said = _FIXED.pack(_VERSION, bytes.fromhex(named.digest), *named.sizes)
        said += os.fsencode(named.path)
        return urlsafe_b64encode(said + self._mac(said)).rstrip(b"=").decode()

    def read(self, token: str) -> Named:
        """
        What *token* says.

        Raises:
            NotShared: It was made by nobody who has the key.
        """
        try:
            octets = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raise NotShared("not a token") from None
        said, mac = octets[:-_MAC_SIZE], octets[-_MAC_SIZE:]
        if len(said) <= _FIXED.size or not hmac.compare_digest(mac, self._mac(said)):
            raise NotShared("a token that was not signed with our key")
        version, digest, physical, virtual = _FIXED.unpack_from(said)
        if version != _VERSION:
            raise NotShared(f"a token of version {version}")
        path = os.fsdecode(said[_FIXED.size :])
        return Named(path, Sizes(physical, virtual), digest.hex())

    def find(self, message: IMessage, line_ending: LineEnding, name: str) -> Shared | None:
        """
        The stored copy of *message* that one of its recipients brings a token for, if it is what it
        should be.  It is held under *name* until it is let go.
        """
        for recipient in message.envelope.recipients:
            token = recipient.parameters.get("MAILDATA")
            if token is None:
                continue
            try:
                return self._take(message, line_ending, self.read(token), name)
            except NotShared as error:
                _log.info("{id}: no copy is shared: {error}", id=message.id, error=error)
            except OSError as error:
                _log.info(
                    "{id}: no copy is shared: {error}", id=message.id, error=error.strerror or error
                )
        return None

    def _take(self, message: IMessage, line_ending: LineEnding, named: Named, name: str) -> Shared:
        if named.digest != message.digest:
            raise NotShared("the token is of another text")
        held = os.path.join(self._directory, name)
        # From here on it is this very file, whatever becomes of its name.
        os.link(named.path, held, follow_symlinks=False)
        try:
            _compare(held, named, message, line_ending)
        except BaseException:
            remove(held)
            raise
        return Shared(message, held, named.sizes)

    def _mac(self, said: bytes) -> bytes:
        return hmac.digest(self._key, b"lmtpsvc MAILDATA" + said, "sha256")


@implementer(IMessage)
class Shared:
    """
    *message* as another node has stored it, in the file *path*: the same text, behind the trace
    headers of the other node.
    """

    def __init__(self, message: IMessage, path: str, sizes: Sizes) -> None:
        self._message, self.path, self._sizes = message, path, sizes
        self.id: str = message.id
        self.envelope: Envelope = message.envelope
        self.deadline: float = message.deadline
        self.digest: str = message.digest
        self.trace: bytes = message.trace
        self.is_for_all: bool = message.is_for_all
        self.begun: float = message.begun

    def open(self, line_ending: LineEnding = "\r\n") -> BinaryIO:
        # Only ever asked for in the form that the backend stores.
        return open(self.path, "rb")

    def sizes(self, line_ending: LineEnding = "\r\n") -> Sizes:
        return self._sizes

    def recipients_of(self, mailbox: Mailbox) -> Sequence[Recipient]:
        return self._message.recipients_of(mailbox)

    def headers(self) -> EmailMessage:
        return self._message.headers()

    def let_go(self) -> None:
        """
        It is linked, or will not be.
        """
        remove(self.path)


def _compare(path: str, named: Named, message: IMessage, line_ending: LineEnding) -> None:
    """
    Make sure that the file holds the text of *message* in the form that we store.

    Raises:
        NotShared: It does not.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as theirs, closing(message.open(line_ending)) as ours:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size != named.sizes.physical:
            raise NotShared("the file is not what was stored")
        head = len(
            message.trace if line_ending == "\r\n" else message.trace.replace(b"\r\n", b"\n")
        )
        text_size = message.sizes(line_ending).physical - head
        if text_size > seen.st_size:
            raise NotShared("the file is too short")
        # The first line says who has sent it, and readers believe that of every message.
        sender = message.trace.partition(b"\r\n")[0] + line_ending.encode()
        if message.trace and theirs.read(len(sender)) != sender:
            raise NotShared("the file is from another sender")
        ours.seek(head)
        theirs.seek(seen.st_size - text_size)
        while chunk := ours.read(CHUNK):
            if theirs.read(len(chunk)) != chunk:
                raise NotShared("the file holds another text")
