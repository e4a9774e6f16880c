"""
What the operator has chosen for a pipe backend, and how it is read from words.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from ..interfaces import LineEnding
from ..quantities import count, octets, seconds
from .words import choice, quantity

SYNOPSIS: Final = (
    "pipe:COMMAND[:ARGUMENT...][:per=recipient|message][:as=USER|owner][:timeout=60s][:output=4K]"
    "[:newline=lf|crlf][:processes=8]"
)

#: What may stand in an argument: of the mailbox, of the message, and of both together.
FIELDS: Final = ("user", "domain", "detail", "home", "recipient", "sender", "id", "size", "client")
#: An argument of its own, which is one for each recipient.
RECIPIENTS: Final = "{recipients}"
#: What only a mailbox has.
_OF_MAILBOX: Final = {"user", "domain", "detail", "home", "recipient"}

_PER: Final = {"recipient": False, "message": True}
_NEWLINE: Final[Mapping[str, LineEnding]] = {"lf": "\n", "crlf": "\r\n"}

field_in = re.compile(r"\{([^{}]*)\}")


@frozen
class Account:
    """
    Whom a command runs as: *groups* are the supplementary ones.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def of(cls, name: str) -> Account:
        """
        The user called *name*.

        Raises:
            ValueError: There is none.
        """
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise ValueError(f"as={name}: no such user") from None
        groups = os.getgrouplist(name, found.pw_gid)
        return cls(found.pw_uid, found.pw_gid, tuple(groups))


@frozen
class PipeSettings:
    """
    Which command is run, how, and for how long.
    """

    command: str
    arguments: tuple[str, ...] = ()
    #: Once for all recipients of a message.
    per_message: bool = False
    #: None: whoever the service is.
    account: Account | None = None
    #: As the user to whom the mailbox belongs.
    as_owner: bool = False
    #: Seconds that it may run.
    timeout: float = 60.0
    #: Octets of what it says that are kept for the log.
    output: int = 4096
    line_ending: LineEnding = "\n"
    #: Commands that run at a time, at most.
    processes: int = 8


def from_words(words: Sequence[str], options: Mapping[str, str]) -> PipeSettings:
    """
    Read the words of the command line.

    Raises:
        ValueError: With one line that says what is wrong.
    """
    if not words:
        raise ValueError(f"expected {SYNOPSIS}")
    command, *arguments = words
    left = dict(options)
    per_message = choice(left, "per", "recipient", _PER)
    user = left.pop("as", None)
    settings = PipeSettings(
        _program(command),
        tuple(arguments),
        per_message,
        None if user in {None, "owner"} else Account.of(str(user)),
        user == "owner",
        quantity(left, "timeout", "60s", seconds),
        quantity(left, "output", "4K", octets),
        choice(left, "newline", "lf", _NEWLINE),
        quantity(left, "processes", "8", count),
    )
    if left:
        raise ValueError(f"{min(left)}: no such option; expected {SYNOPSIS}")
    for argument in arguments:
        _check(argument, per_message=per_message)
    if per_message and settings.as_owner:
        raise ValueError("as=owner: a message has several; it goes with per=recipient only")
    if settings.account is not None and os.geteuid() not in {0, settings.account.uid}:
        raise ValueError(f"as={user}: only root can run a command as somebody else")
    return settings


def _program(command: str) -> str:
    if not os.path.isabs(command):
        raise ValueError(f"{command}: write the whole path, such as /usr/local/bin/{command}")
    if not os.path.isfile(command):
        raise ValueError(f"{command}: there is no such file")
    if not os.access(command, os.X_OK):
        raise ValueError(f"{command}: cannot be executed")
    return command


def _check(argument: str, *, per_message: bool) -> None:
    """
    Find fields that there are not.
    """
    if "\0" in argument:
        raise ValueError("an argument has a NUL in it")
    if argument == RECIPIENTS:
        if not per_message:
            raise ValueError(f"{argument}: goes with per=message only; write {{recipient}}")
        return
    for name in field_in.findall(argument):
        if name not in FIELDS:
            known = ", ".join("{%s}" % each for each in FIELDS)
            raise ValueError(f"{argument}: {{{name}}} is not a field; the fields are {known}")
        if per_message and name in _OF_MAILBOX:
            raise ValueError(f"{argument}: a message has several recipients; write {RECIPIENTS}")


def owner(uid: int, gid: int) -> Account:
    """
    The account of a mailbox's owner, with the groups that the system knows of.
    """
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return Account(uid, gid, (gid,))
    return Account(uid, gid, tuple(os.getgrouplist(name, gid)))
