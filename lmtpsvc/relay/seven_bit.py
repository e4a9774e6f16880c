"""
A message as 7-bit MIME, for a server without 8BITMIME (RFC 6152 §3): part by part, and octet by octet
the same where nothing has to change.

The message is never in memory: it is a file in which parts are found by their positions.
"""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import compat32
from typing import BinaryIO, Final, cast

from attrs import frozen

#: Octets of headers of one part, parts within parts, and parts, at most: more is an attack.
MOST_HEADERS: Final = 1 << 20
MOST_DEPTH: Final = 32
MOST_PARTS: Final = 10_000
#: RFC 5322 §2.1.1, with CRLF.
_LINE: Final = 1000
_PIECE: Final = 57 * 1024
_IN_MEMORY: Final = 1 << 18
#: A text of which more is not ASCII is shorter, and no harder to read, in base64.
_MOSTLY: Final = 1 / 6

_not_seven = re.compile(rb"[\x00\x80-\xff]").search
_not_seven_at_all = re.compile(rb"[\x00\x80-\xff]")
_eight = re.compile(rb"[\x80-\xff]")
_encoding_field = re.compile(
    rb"^Content-Transfer-Encoding[ \t]*:.*\n(?:[ \t].*\n)*", re.IGNORECASE | re.MULTILINE
)
_plain: Final = frozenset({"", "7bit", "8bit", "binary"})


class CannotConvert(ValueError):
    """
    It has to stay as it is; the text, one line of ASCII, says why.
    """


def seven_bit(file: BinaryIO) -> BinaryIO:
    """
    Return a new file with the message in *file*, which can be sought in, as 7-bit text.

    Headers stay as they are but for Content-Transfer-Encoding; texts become quoted-printable or
    base64, whichever is shorter, all else base64.

    Raises:
        CannotConvert: What would change is signed or encrypted, has headers that are not ASCII, or
            is not well formed.
    """
    out = cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - returned
    try:
        end = file.seek(0, 2)
        _Conversion(file, out).entity(_Range(0, end), "text/plain", 0, is_message=True)
        out.seek(0)
    except BaseException:
        out.close()
        raise
    return out


@frozen
class _Delimiter:
    """
    A boundary: what is *before* it ends there, and what is behind it begins at *end*.
    """

    before: int
    end: int
    is_last: bool


@frozen
class _Range:
    """
    Octets of a file, from *start* to *end*.
    """

    start: int
    end: int


class _Conversion:
    def __init__(self, file: BinaryIO, out: BinaryIO) -> None:
        self._file, self._out = file, out

    def entity(self, whole: _Range, default: str, depth: int, *, is_message: bool = False) -> None:
        """
        Write a message, or a part of one; *default* is its type if it does not say.
        """
        if depth > MOST_DEPTH:
            raise CannotConvert("Parts within parts within parts cannot be converted to 7 bits")
        if self._is_seven_bit(whole):
            self._copy(whole)
            return
        head, body = self._head(whole)
        if _not_seven(head):
            raise CannotConvert("Headers with 8-bit text cannot be converted to 7 bits")
        fields = BytesHeaderParser(policy=compat32).parsebytes(head)
        kind = fields.get_content_type() if "Content-Type" in fields else default
        encoding = str(fields.get("Content-Transfer-Encoding", "")).strip().lower()
        if encoding not in _plain:
            raise CannotConvert("8-bit text that claims to be encoded cannot be converted")
        if kind in {"multipart/signed", "multipart/encrypted"}:
            raise CannotConvert("8-bit text that is signed or encrypted cannot be converted")
        if kind.startswith("multipart/"):
            self._out.write(_relabelled(head, "7bit"))
            self._multipart(body, fields, depth)
        elif kind == "message/rfc822":
            self._out.write(_relabelled(head, "7bit"))
            self.entity(body, "text/plain", depth + 1, is_message=True)
        elif kind.startswith("message/") and not kind.startswith("message/global"):
            # RFC 2046 §5.2: they must not be encoded; RFC 6532 §3.7 lets those of UTF-8.
            raise CannotConvert(f"8-bit {kind} cannot be converted")
        else:
            self._leaf(head, body, fields, kind, is_message=is_message)

    # ── kinds ────────────────────────────────────────────────────────────────────────────────────

    def _leaf(
        self, head: bytes, body: _Range, fields: Message, kind: str, *, is_message: bool
    ) -> None:
        more = b""
        if is_message and "MIME-Version" not in fields:
            more = b"MIME-Version: 1.0\r\n"
            if "Content-Type" not in fields:
                # RFC 1428 §3: nobody knows in which charset it was written.
                more += b"Content-Type: text/plain; charset=unknown-8bit\r\n"
        if kind.startswith("text/") and self._share_of_eight(body) <= _MOSTLY:
            self._out.write(_relabelled(head, "quoted-printable", more))
            self._quoted_printable(body)
        else:
            self._out.write(_relabelled(head, "base64", more))
            self._base64(body)

    def _multipart(self, body: _Range, fields: Message, depth: int) -> None:
        boundary = fields.get_boundary()
        if not boundary or not boundary.isascii():
            raise CannotConvert(
                "8-bit text of several parts without a boundary cannot be converted"
            )
        inner = "message/rfc822" if fields.get_content_subtype() == "digest" else "text/plain"
        at, is_part = body.start, False
        for line in self._delimiters(body, boundary.encode("ascii")):
            if is_part:
                # RFC 2046 §5.1.1: the CRLF in front belongs to the boundary.
                part = _Range(at, max(at, line.before))
                self.entity(part, inner, depth + 1)
                self._copy(_Range(part.end, line.end))
            else:
                self._copy_in_ascii(_Range(at, line.end))
            at, is_part = line.end, not line.is_last
        if is_part:
            # It was cut off; what there is of the last part is one.
            self.entity(_Range(at, body.end), inner, depth + 1)
        else:
            self._copy_in_ascii(_Range(at, body.end))

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def _head(self, whole: _Range) -> tuple[bytes, _Range]:
        """
        The headers of a part, up to the empty line and with it; and where its body is.
        """
        lines, size = [], 0
        for line in self._pieces(whole, by_line=True):
            lines.append(line)
            size += len(line)
            if line in {b"\r\n", b"\n"}:
                break
            if size >= MOST_HEADERS:
                raise CannotConvert("Headers of such a size cannot be converted")
        return b"".join(lines), _Range(whole.start + size, whole.end)

    def _delimiters(self, body: _Range, boundary: bytes) -> list[_Delimiter]:
        """
        The boundaries in *body*, up to the last one.
        """
        matches = re.compile(rb"--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r?\n)?").fullmatch
        found: list[_Delimiter] = []
        at, before, is_line = body.start, body.start, True
        for piece in self._pieces(body, by_line=True):
            match = matches(piece) if is_line else None
            if match is not None:
                found.append(_Delimiter(before, at + len(piece), match[1] is not None))
                if found[-1].is_last:
                    break
                if len(found) > MOST_PARTS:
                    raise CannotConvert("So many parts cannot be converted to 7 bits")
            at += len(piece)
            is_line = piece.endswith(b"\n")
            before = at - (2 if piece.endswith(b"\r\n") else 1 if is_line else 0)
        return found

    def _is_seven_bit(self, whole: _Range) -> bool:
        length = 0
        for piece in self._pieces(whole, by_line=True):
            if _not_seven(piece):
                return False
            length += len(piece)
            if length > _LINE:
                return False
            if piece.endswith(b"\n"):
                length = 0
        return True

    def _share_of_eight(self, body: _Range) -> float:
        count = sum(len(_eight.findall(piece)) for piece in self._pieces(body))
        return count / max(body.end - body.start, 1)

    def _pieces(self, whole: _Range, *, by_line: bool = False) -> Iterator[bytes]:
        """
        The octets of *whole*, in pieces, none of which ends between CR and LF; or in lines, of which
        long ones are in pieces.
        """
        file, at = self._file, whole.start
        while at < whole.end:
            file.seek(at)
            most = min(_PIECE, whole.end - at)
            piece = file.readline(most) if by_line else file.read(most)
            if not piece:
                return
            if piece.endswith(b"\r") and at + len(piece) < whole.end:
                piece += file.read(1)
            at += len(piece)
            yield piece

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def _copy(self, whole: _Range) -> None:
        for piece in self._pieces(whole):
            self._out.write(piece)

    def _copy_in_ascii(self, whole: _Range) -> None:
        """
        What stands around the parts, and which nobody reads.
        """
        for piece in self._pieces(whole):
            self._out.write(_not_seven_at_all.sub(b"?", piece))

    def _base64(self, body: _Range) -> None:
        left = b""
        for piece in self._pieces(body):
            octets = left + piece
            whole = len(octets) - len(octets) % 57
            self._out.write(base64.encodebytes(octets[:whole]).replace(b"\n", b"\r\n"))
            left = octets[whole:]
        self._out.write(base64.encodebytes(left).replace(b"\n", b"\r\n"))

    def _quoted_printable(self, body: _Range) -> None:
        at = body.start
        for piece in self._pieces(body, by_line=True):
            at += len(piece)
            line = piece.removesuffix(b"\r\n")
            # Not as text: a lone CR or LF in the line is an octet like any other.
            encoded = binascii.b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n")
            self._out.write(encoded)
            if line is not piece and piece.endswith(b"\r\n"):
                self._out.write(b"\r\n")
            elif at < body.end:
                self._out.write(b"=\r\n")


def _relabelled(head: bytes, encoding: str, more: bytes = b"") -> bytes:
    """
    The headers in *head*, with their empty line, and with what they say of the encoding corrected.
    """
    field = f"Content-Transfer-Encoding: {encoding}\r\n".encode()
    kept, count = _encoding_field.subn(field, head, 1)
    if count or encoding == "7bit":
        # Without the field, it is 7bit.
        field = b""
    fields, empty = kept, b""
    if kept in {b"\r\n", b"\n"} or kept.endswith((b"\n\r\n", b"\n\n")):
        empty = b"\r\n" if kept.endswith(b"\r\n") else b"\n"
        fields = kept.removesuffix(empty)
    return fields + more + field + empty
