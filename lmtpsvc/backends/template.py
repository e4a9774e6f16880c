"""
Where a mailbox lies: paths with fields in them, such as ``/srv/mail/{domain}/{user}``.
"""

from __future__ import annotations

import os
import re
from typing import Final

from attrs import field, frozen

from ..envelope import Mailbox
from ..errors import TemporaryFailure, refusal
from ..replies import BAD_MAILBOX

FIELDS: Final = ("user", "domain", "detail", "home")

#: What is put behind a template without a field, so that each address has a place of its own.
DEFAULT_TAIL: Final = "{domain}/{user}"

#: Octets of one name and of a whole path, as Linux has them; our file names need some of a path.
MAX_NAME: Final = 255
MAX_PATH: Final = 4096 - 512

# A name with a slash would lead elsewhere, one with a leading dot could be "..", a Maildir++ folder
# or a directory of ours; control characters (C0, DEL, C1) make a mess of every listing.
_unsafe = re.compile(r"\A\Z|\A\.|[/\x00-\x1f\x7f-\x9f]").search


_field = re.compile(r"\{([^{}]*)\}")


@frozen
class Template:
    """
    A template, checked and made absolute; make one with `parse`.
    """

    text: str
    #: The directory that all paths are in, or None if they are in the users' home directories.
    root: str | None
    #: How many names at the end of a path belong to one user alone.
    private_names: int
    _format: str = field(repr=False)
    _fields: tuple[str, ...] = field(repr=False)

    def expand(self, mailbox: Mailbox) -> str:
        """
        The path for *mailbox*.

        Raises:
            PermanentFailure: A field that the template uses is empty or cannot be part of a path.
                (So ``{detail}`` takes no mail for an address without one.)
            TemporaryFailure: The template uses ``{home}``, and the directory does not know it.
        """
        path = self._format % tuple([_value(mailbox, name) for name in self._fields])
        if (len(path) >= MAX_NAME or not path.isascii()) and not _fits(path):
            raise refusal(BAD_MAILBOX)
        return path


def parse(text: str) -> Template:
    """
    Read a template; a relative one counts from the current directory.

    ``{home}`` is for the beginning only.  A template without any field is a directory in which each
    mailbox gets its own: ``/{domain}/{user}`` is added.

    Raises:
        ValueError: With one line that says what to do.
    """
    if not text:
        raise ValueError("the path is missing, for example /srv/mail/{domain}/{user}")
    if text.startswith("~"):
        raise ValueError(f"{text}: write {{home}} for the user's home directory, not ~")
    if not _fields(text):
        text = f"{text}/{DEFAULT_TAIL}"
    fields = _fields(text)
    fixed, _, rest = text[: text.index("{")].rpartition("/")
    tail = os.path.normpath(rest + text[text.index("{") :])
    names = tail.split("/")
    if ".." in text[text.index("{") :].split("/"):
        raise ValueError(f"{text}: there can be no .. behind a field")
    form = _field.sub("%s", tail.replace("%", "%%"))
    if "home" in fields:
        if names[0] != "{home}" or text[0] != "{" or "home" in fields[1:]:
            raise ValueError(f"{text}: {{home}} can only be the beginning, as in {{home}}/Maildir")
        return Template(tail, None, len(names) - 1, form, fields)
    root = os.path.abspath(fixed or ("/" if text.startswith("/") else "."))
    shared = next((n for n, name in enumerate(names) if "{user}" in name), len(names) - 1)
    path = os.path.join(root, tail)
    form = os.path.join(root.replace("%", "%%"), form)
    return Template(path, root, len(names) - shared, form, fields)


def _fields(text: str) -> tuple[str, ...]:
    """
    The names of the fields in *text*, in their order.
    """
    known = ", ".join("{%s}" % name for name in FIELDS)
    names = tuple(_field.findall(text))
    if set("{}") & set(_field.sub("", text)):
        raise ValueError(f"{text}: a brace stands alone; the fields are {known}")
    for name in names:
        if name not in FIELDS:
            raise ValueError(f"{text}: {{{name}}} is not a field; the fields are {known}")
    return names


def _value(mailbox: Mailbox, name: str) -> str:
    """
    What stands for the field *name*, if it may be part of a path.
    """
    value: str = getattr(mailbox, name)
    if name == "home":
        if not value or not value.startswith("/") or "\0" in value:
            raise TemporaryFailure("Home directory not known, try again later", (3, 0))
        return value.rstrip("/")
    if _unsafe(value):
        raise refusal(BAD_MAILBOX)
    return value


def _fits(path: str) -> bool:
    """
    Whether the file system can have that *path*.
    """
    try:
        octets = path.encode()
    except UnicodeEncodeError:
        return False
    return len(octets) <= MAX_PATH and all(len(name) <= MAX_NAME for name in octets.split(b"/"))
