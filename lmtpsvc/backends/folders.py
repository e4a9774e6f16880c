"""
The names of Maildir++ folders, for ``detail=folder``.

A Maildir++ folder is a Maildir in a directory within the INBOX's, ``.lists.python`` for the folder
``python`` in ``lists``; other characters than printable ASCII are written in the modified UTF-7
of IMAP (RFC 3501 §5.1.3).
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Final

from ..errors import refusal
from ..replies import BAD_MAILBOX
from .template import MAX_NAME

# A folder with such a name could not be selected, or would be another directory.
_unsafe = re.compile(r"\A\.|\.\.|\.\Z|[/\x00-\x1f\x7f-\x9f]").search

_special = re.compile(r"&|[^ -~]+")

INBOX: Final = "INBOX"


def directory_name(detail: str) -> str:
    """
    The directory of the folder *detail*, relative to the INBOX's; empty for INBOX itself.

    A dot in *detail* separates levels, as everywhere in Maildir++.

    Raises:
        PermanentFailure: There can be no folder of that name.
    """
    if not detail or detail.upper() == INBOX:
        return ""
    if _unsafe(detail):
        raise refusal(BAD_MAILBOX)
    name = "." + modified_utf7(detail)
    if len(name) > MAX_NAME:
        raise refusal(BAD_MAILBOX)
    return name


def modified_utf7(text: str) -> str:
    """
    *text* as IMAP writes mailbox names (RFC 3501 §5.1.3).
    """

    def encode(found: re.Match[str]) -> str:
        if found[0] == "&":
            return "&-"
        octets = found[0].encode("utf-16-be", "replace")
        return f"&{b64encode(octets, b'+,').rstrip(b'=').decode('ascii')}-"

    return _special.sub(encode, text)
