"""
The mark: what makes an append to an mbox whole or nothing, whenever the service dies.

Before anything is appended, an extended attribute of the file, the mark, says where the file ended
and what messages are about to come; the disk has it before the first octet follows.  Once all is
written the mark also says how much that was, with a checksum, and one fsync makes both safe.  Then
it is taken away.  So whoever opens the mailbox next, with the locks in hand, and finds a mark knows
that somebody died in between, and mends the file: what is there as a whole stays (it may have been
answered 250), and what is there in part is cut off (it has not).

Why an attribute, and not a file beside the mailbox: it needs no right to create files, nobody but
the owner of the mailbox can forge it, and it goes where the file goes: if a mail reader renames a
new file into place, the mark, about a file that is no more, is gone as well.

Between a death and the mending others may come, since the kernel takes the locks of the dead away.
A **reader** sees the beginning of a message; it is in no danger, and the message comes again whole,
for the client was not told that we have it.  If it rewrites the file, what the mark says is not
true any more, and if another program **delivers**, its mail stands behind our rest.  So nothing is
cut that is not ours for certain:

- where the file ended begins one of our messages: its ``From `` line, which has sender and time, is
  known by its checksum;
- there is no other ``From `` line behind it that is not one of ours, and none within a line, where
  a program that does not look how the file ends would put it.  Our own text has no such line of its
  own, because of mboxrd quoting; one that has one within a line is taken for somebody's, too.

If in doubt, the file stays as it is, and the log says so: half a message, to be deleted by hand, is
better than somebody's mail lost.

File systems without extended attributes of users (some NFS servers, tmpfs before Linux 6.6) have no
mark.  There, errors are undone and what was answered 250 is safe as everywhere, but a crash in the
middle can leave the beginning of a message.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from attrs import frozen
from twisted.logger import Logger

_log = Logger()

#: Short, so that for a single message name and value fit into the inode of ext4.
NAME: Final = "user.lmtpsvc"

_VERSION: Final = 1
_FIXED: Final = struct.Struct("<BQQI")

#: Octets that are looked at at a time, and how many of them are looked at again with the next: more
#: than the longest From line.
_PIECE: Final = 1 << 20
_OVERLAP: Final = 1 << 12

# There is none, or there can be none: it takes the right to write to set one, which who comes here
# has, but for servers that see it otherwise.
_NO_MARK: Final = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES)

_from = re.compile(rb"(?<=\n)From [^\n]*(?:\n|\Z)")

# RFC 4155, Appendix A: after the sender comes the date as asctime() has it.
_glued = re.compile(rb"[^\n]From [^\n]* (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ 0-9]")


@frozen
class Mark:
    """
    What is being appended: from *start* on, messages whose From lines have the checksums *heads*.

    Once all is written, *length* is how much that is, with its *checksum*.
    """

    start: int
    heads: tuple[int, ...]
    length: int = 0
    checksum: int = 0

    def encode(self) -> bytes:
        """
        The value of the attribute.
        """
        fixed = _FIXED.pack(_VERSION, self.start, self.length, self.checksum)
        return fixed + struct.pack(f"<{len(self.heads)}I", *self.heads)


def decode(value: bytes) -> Mark | None:
    """
    What an attribute says; None if it is not one of ours.
    """
    count, rest = divmod(len(value) - _FIXED.size, 4)
    if count < 0 or rest or value[0] != _VERSION:
        return None
    _, start, length, checksum = _FIXED.unpack_from(value)
    return Mark(start, struct.unpack_from(f"<{count}I", value, _FIXED.size), length, checksum)


def put(descriptor: int, mark: Mark) -> bool:
    """
    Set the mark; False if there can be none.
    """
    try:
        os.setxattr(descriptor, NAME, mark.encode())
    except OSError as error:
        if error.errno not in _NO_MARK:
            raise
        return False
    return True


def take_away(descriptor: int) -> None:
    """
    Remove the mark, if there is one.
    """
    try:
        os.removexattr(descriptor, NAME)
    except OSError as error:
        if error.errno not in _NO_MARK:
            raise


def is_marked(path: str) -> bool:
    """
    Whether *path*, not followed if it is a link, is a file with a mark.
    """
    try:
        return bool(os.getxattr(path, NAME, follow_symlinks=False))
    except OSError:
        return False


def mend(descriptor: int, path: str) -> None:
    """
    Undo what somebody has begun who died, if anybody did; with the locks in hand.
    """
    try:
        value = os.getxattr(descriptor, NAME)
    except OSError as error:
        if error.errno not in _NO_MARK:
            raise
        return
    mark, size = decode(value), os.fstat(descriptor).st_size
    if mark is None:
        _log.warn("{path}: a mark that says nothing is removed", path=path)
    elif size <= mark.start or _is_whole(descriptor, mark, size):
        pass
    elif _is_ours(descriptor, mark, size):
        _log.warn(
            "{path}: a delivery did not come to its end; {count} octets of it are cut off",
            path=path,
            count=size - mark.start,
        )
        os.ftruncate(descriptor, mark.start)
        os.fsync(descriptor)
    else:
        _log.error(
            "{path}: a delivery did not come to its end, and somebody has written since; there may"
            " be a message in part, at octet {start}",
            path=path,
            start=mark.start,
        )
    take_away(descriptor)


def _is_whole(descriptor: int, mark: Mark, size: int) -> bool:
    """
    Whether all is there, with whatever behind it.
    """
    end = mark.start + mark.length
    if not mark.length or size < end:
        return False
    checksum = 0
    for offset in range(mark.start, end, _PIECE):
        checksum = crc32(os.pread(descriptor, min(_PIECE, end - offset), offset), checksum)
    return checksum == mark.checksum


def _is_ours(descriptor: int, mark: Mark, size: int) -> bool:
    """
    Whether nothing but our own messages, or parts of them, is behind the old end.
    """
    for at_start, piece in _pieces(descriptor, mark.start, size):
        if at_start:
            # There are zeros where a power cut has left a file longer, but not filled: nobody else
            # writes any.
            first = piece.lstrip(b"\r\n").partition(b"\0")[0]
            if not (first.startswith(b"From ") or b"From ".startswith(first)):
                return False
        if _glued.search(piece):
            return False
        for found in _from.finditer(piece):
            line = found[0]
            # A line without an end is the end of a part, if the file ends there.
            if line.endswith(b"\n") and b"\0" not in line and crc32(line) not in mark.heads:
                return False
    return True


def _pieces(descriptor: int, start: int, size: int) -> Iterator[tuple[bool, bytes]]:
    """
    The file from *start* on, in pieces that overlap; the first is told, and begins with an LF.
    """
    for offset in range(start, size, _PIECE):
        if offset == start:
            yield True, b"\n" + os.pread(descriptor, _PIECE, offset)
        else:
            yield False, os.pread(descriptor, _PIECE + _OVERLAP, offset - _OVERLAP)
