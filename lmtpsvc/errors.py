"""
What a directory or backend raises to refuse a recipient.

There are two kinds of failure.  A DeliveryError is an answer, and is sent.  Any other exception
is a defect of ours or of a plugin: it is logged whole, answered 451, and its text is never shown.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import ClassVar

from . import replies
from .replies import Reply
from .response_codes import ResponseCode


class DeliveryError(Exception):
    """
    A refusal for one recipient; raise one of the two subclasses.

    *text* goes to the client as it is: name the condition, never a path, a table or a host.  Put
    those in the log, or chain the cause with ``raise ... from``.  *status* is subject and detail
    of the enhanced code (RFC 3463); its class comes from *code*.  *codes* are for programs, and heard
    by those only that have asked.

    Raises:
        ValueError: *code* does not fit the subclass, *status* is none, or *text* is not one printable
            ASCII line.
    """

    kind: ClassVar[int]
    default_code: ClassVar[int]

    #: What the client will read.
    reply: Reply

    def __init__(
        self,
        text: str,
        status: tuple[int, int] = (0, 0),
        code: int = 0,
        codes: Iterable[ResponseCode] = (),
    ) -> None:
        super().__init__(text)
        code = code or self.default_code
        if code // 100 != self.kind:
            raise ValueError(f"{code} is not a {self.kind}yz code")
        self.reply = Reply(code, text, status, tuple(codes))


class TemporaryFailure(DeliveryError):
    """
    Not now; the client keeps its copy and tries again (4yz).
    """

    kind = 4
    default_code = 451


class PermanentFailure(DeliveryError):
    """
    Not ever; the client returns the message to its sender (5yz).
    """

    kind = 5
    default_code = 550


def refusal(reply: Reply) -> DeliveryError:
    """
    The exception that says exactly *reply*, a 4yz or 5yz one.
    """
    kind = TemporaryFailure if reply.code < 500 else PermanentFailure
    return kind(reply.text, reply.status or (0, 0), reply.code, reply.codes)


def from_os_error(error: OSError, mailbox_full: Reply = replies.MAILBOX_FULL) -> DeliveryError:
    """
    Choose the reply for a file system error (codes: RFC 3463 §3.3, §3.4); log the error yourself.

    Anything unforeseen is temporary: a lost mount or a slip of the administrator is no reason to
    return mail to its sender.
    """
    match error.errno:
        case errno.EDQUOT:
            return refusal(mailbox_full)
        case errno.ENOSPC | errno.EROFS:
            # ENOSPC is also what the lack of inodes is called.
            return refusal(replies.NO_SPACE)
        case errno.EFBIG:
            # No file here may be that large, tomorrow neither.
            return refusal(replies.TOO_LARGE)
        case errno.ENAMETOOLONG:
            return refusal(replies.BAD_MAILBOX)
        case errno.EACCES | errno.EPERM | errno.ELOOP | errno.ENOTDIR:
            return refusal(replies.MAILBOX_UNAVAILABLE)
        case _:
            return refusal(replies.CANNOT_STORE)
