"""
The pipe backend: a command gets each message on its standard input, and its exit status is the reply.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from ..commitment import Commitment
from ..envelope import Mailbox
from ..errors import PermanentFailure, TemporaryFailure, refusal
from ..interfaces import Capabilities, IBackend, IBackendFactory, IMessage, ITellsWhere
from ..replies import BAD_MAILBOX, CANNOT_STORE, NO_SUCH_USER, OUT_OF_TIME, Reply
from .pipe_process import Ended, run
from .pipe_settings import (
    RECIPIENTS,
    SYNOPSIS,
    Account,
    PipeSettings,
    field_in,
    from_words,
    owner,
)
from .pool import Pool, WorkerPool

_log = Logger()

#: What a command finds in its environment besides the message's own.
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

#: What the exit statuses of sysexits.h mean.  Those that tell of a mistake of the operator's, or of
#: the machine's, are temporary: nobody's mail is returned for that.
STATUSES: Final[Mapping[int, Reply]] = {
    65: Reply(550, "The content is not accepted", (6, 0)),  # EX_DATAERR
    67: NO_SUCH_USER,  # EX_NOUSER
    68: Reply(550, "No such host", (1, 2)),  # EX_NOHOST
    69: Reply(550, "Not accepted", (3, 0)),  # EX_UNAVAILABLE
    76: Reply(550, "Not accepted", (5, 0)),  # EX_PROTOCOL
    77: Reply(550, "Not permitted", (7, 1)),  # EX_NOPERM
}


@implementer(IBackend, ITellsWhere)
class PipeBackend(Service):
    """
    Runs a command for each recipient, or for each message, in *pool*.
    """

    def __init__(self, settings: PipeSettings, pool: Pool, clock: IReactorTime) -> None:
        self._settings, self._pool, self._seconds = settings, pool, clock.seconds
        self.capabilities = Capabilities(settings.line_ending)

    def startService(self) -> None:
        """
        Make sure that no command runs as root by mistake.

        Raises:
            OSError: It would.
        """
        super().startService()
        settings = self._settings
        if os.geteuid() == 0 and settings.account is None and not settings.as_owner:
            raise OSError(
                errno.EPERM, "would run as root; say as=USER, or as=root", settings.command
            )

    def stopService(self) -> Deferred[None]:
        """
        Fires when all commands have ended.
        """
        super().stopService()
        return self._pool.stop()

    def verify(self, mailbox: Mailbox) -> None:
        """
        Refuse a *mailbox* that cannot be named to the command.
        """
        self._words([mailbox], None)
        self._account(mailbox)

    def where(self, mailbox: Mailbox) -> str:
        return " ".join(self._words([mailbox], None))

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Commitment]:
        """
        Run the command: for each mailbox, or once for all.
        """
        results = [Commitment() for _ in mailboxes]
        if self._settings.per_message:
            self._pool.run(partial(self._work, message, list(mailboxes), results))
            return results
        waiting: dict[Mailbox, list[Commitment]] = {}
        for mailbox, result in zip(mailboxes, results, strict=True):
            waiting.setdefault(mailbox, []).append(result)
        for mailbox, of_mailbox in waiting.items():
            self._pool.run(partial(self._work, message, [mailbox], of_mailbox))
        return results

    def _work(self, message: IMessage, mailboxes: list[Mailbox], results: list[Commitment]) -> None:
        """
        In a worker thread: run the command for those who still want it.
        """
        wanted = [result for result in results if result.begin()]
        if not wanted:
            return
        if self._settings.per_message and len(wanted) < len(results):
            pairs = zip(mailboxes, results, strict=True)
            mailboxes = [mailbox for mailbox, result in pairs if result in wanted]
        try:
            self._run(message, mailboxes)
        except BaseException:
            failure = Failure()
            for result in wanted:
                self._pool.post(result.errback, failure)
        else:
            for result in wanted:
                self._pool.post(result.callback, None)

    def _run(self, message: IMessage, mailboxes: list[Mailbox]) -> None:
        settings = self._settings
        left = min(settings.timeout, message.deadline - self._seconds())
        if left <= 0:
            raise refusal(OUT_OF_TIME)
        words = self._words(mailboxes, message)
        account = self._account(mailboxes[0])
        try:
            ended = run(
                words,
                message.open(settings.line_ending),
                _environment(message, mailboxes),
                account,
                left,
                settings.output,
            )
        except OSError as error:
            _log.error(
                "{id}: {command} cannot be started: {error}",
                id=message.id,
                command=settings.command,
                error=error,
            )
            raise refusal(CANNOT_STORE) from error
        self._judge(message, mailboxes, ended)

    def _judge(self, message: IMessage, mailboxes: list[Mailbox], ended: Ended) -> None:
        """
        Raise the failure that *ended* means, if it means one.
        """
        if ended.status == 0 and not ended.out_of_time:
            return
        _log.error(
            "{id}: {command} for {mailboxes} {how}: {output}",
            id=message.id,
            command=self._settings.command,
            mailboxes=", ".join(map(str, mailboxes)),
            how=_how(ended),
            output=ended.output.decode(errors="backslashreplace").strip() or "(it said nothing)",
        )
        if ended.out_of_time:
            raise refusal(OUT_OF_TIME)
        raise refusal(STATUSES.get(ended.status, CANNOT_STORE))

    def _account(self, mailbox: Mailbox) -> Account | None:
        settings = self._settings
        if not settings.as_owner:
            return settings.account
        if mailbox.uid is None or mailbox.gid is None:
            raise TemporaryFailure("The owner of the mailbox is not known, try again later", (3, 0))
        return owner(mailbox.uid, mailbox.gid)

    def _words(self, mailboxes: Sequence[Mailbox], message: IMessage | None) -> list[str]:
        """
        The command with its arguments; without a *message*, what is said of it stays a field.

        Raises:
            PermanentFailure: An address cannot be one of them, or would be taken for an option.
        """
        words = [self._settings.command]
        for argument in self._settings.arguments:
            if argument == RECIPIENTS:
                words += [_harmless(str(each), starts=True) for each in mailboxes]
                continue
            words.append(_filled(argument, _values(mailboxes[0], message)))
        return words


def _values(mailbox: Mailbox, message: IMessage | None) -> dict[str, str]:
    values = {
        "user": mailbox.user,
        "domain": mailbox.domain,
        "detail": mailbox.detail,
        "home": mailbox.home or "",
        "recipient": str(mailbox),
    }
    if message is not None:
        values.update(
            sender=str(message.envelope.sender),
            id=message.id,
            size=str(message.sizes().physical),
            client=message.envelope.client.host,
        )
    return values


def _filled(argument: str, values: Mapping[str, str]) -> str:
    """
    *argument* with its fields filled in, those that there are values for.
    """

    def fill(found: re.Match[str]) -> str:
        return _harmless(values.get(found[1], found[0]), starts=found.start() == 0)

    return field_in.sub(fill, argument)


def _harmless(value: str, *, starts: bool) -> str:
    """
    *value*, if it can stand in an argument; at its start, no command may take it for an option.
    """
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise refusal(BAD_MAILBOX)
    if starts and value.startswith("-"):
        raise PermanentFailure("An address that begins with - is not accepted here", (1, 3), 553)
    return value


def _environment(message: IMessage, mailboxes: Sequence[Mailbox]) -> dict[str, str]:
    environment = {
        **_ENVIRONMENT,
        "SENDER": str(message.envelope.sender),
        "CLIENT": message.envelope.client.host,
        "MESSAGE_ID": message.id,
        "SIZE": str(message.sizes().physical),
    }
    if len(mailboxes) == 1:
        mailbox = mailboxes[0]
        environment.update(
            RECIPIENT=str(mailbox), USER=mailbox.user, DOMAIN=mailbox.domain, DETAIL=mailbox.detail
        )
        if mailbox.home:
            environment["HOME"] = mailbox.home
    return {name: _harmless(value, starts=False) for name, value in environment.items()}


def _how(ended: Ended) -> str:
    if ended.out_of_time:
        return "was ended because its time was up"
    if ended.status < 0:
        return f"was ended by {signal.strsignal(-ended.status) or f'signal {-ended.status}'}"
    return f"ended with status {ended.status}"


@implementer(IPlugin, IBackendFactory)
class PipeFactory:
    """
    Makes a `PipeBackend`.
    """

    name = "pipe"
    synopsis = SYNOPSIS
    help = """\
Gives each message to a command, on its standard input; its exit status is the reply (0 is yes, those
of sysexits.h what they mean, all others "later").

COMMAND   the whole path of a program, without a shell, and its ARGUMENTs, each behind a colon.  Fields
          in them: {user} {domain} {detail} {home} {recipient} {sender} {id} {size} {client}.  They are
          in the environment too: USER DOMAIN DETAIL HOME RECIPIENT SENDER MESSAGE_ID SIZE CLIENT.
per       run it for each recipient, or once per message: then {recipients} is an argument for each.
as        the user to run it as, or owner: the one to whom the directory says the mailbox belongs.
timeout   how long it may run; then it is ended, and the reply is 451.
output    how much of what it says goes to the log, if it fails.
newline   how lines end in what it reads.
processes at most so many run at a time.
"""

    def build(self, reactor: object, *words: str, **options: str) -> IBackend:
        """
        Make the backend; the command must be there.
        """
        settings = from_words(words, options)
        pool = WorkerPool(IReactorFromThreads(reactor), settings.processes, "pipe")
        return PipeBackend(settings, pool, IReactorTime(reactor))
