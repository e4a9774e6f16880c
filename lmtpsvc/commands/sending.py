"""
``lmtpsvc send``: a message over LMTP or SMTP, with every reply as it comes.

The exit status says what became of the recipients, so that scripts need not read the output.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from attrs import fields
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from ..client import (
    TLS,
    Client,
    Dialect,
    HeardReply,
    Outcome,
    PoolLimits,
    Timeouts,
    own_name,
)
from ..envelope import Recipient
from .sending_words import Job, job_of
from .streams import show
from .transfer import Bar

#: What the exit status says.
ALL, SOME, NONE = 0, 1, 2
#: EX_USAGE of sysexits.h: nothing was sent because of a mistake in the words.
MISTAKE: Final = 64


def main(words: Sequence[str]) -> int:
    """
    Send what *words* say; returns the exit status.
    """
    try:
        job = job_of(words)
    except OSError as error:
        return _mistake(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        return _mistake(str(error))
    status: list[int] = []
    try:
        react(lambda reactor: ensureDeferred(_run(reactor, job, status)))
    except SystemExit as ended:
        if not status:
            return int(ended.code or NONE)
    finally:
        job.letter.close()
    return status[0]


def _mistake(text: str) -> int:
    sys.stderr.write(f"lmtpsvc send: {text}\n")
    return MISTAKE


async def _run(reactor: Any, job: Job, status: list[int]) -> None:
    options = job.options
    shown = Shown(quiet=options.quiet, single=options.repeat == 1)
    try:
        client = Client(
            reactor,
            options.server,
            dialect=Dialect.SMTP if options.smtp else Dialect.LMTP,
            hostname=options.hello or own_name(),
            tls=TLS(options.tls),
            encryption=job.encryption,
            login=job.login,
            xclient=job.xclient,
            timeouts=Timeouts(**{each.name: job.seconds for each in fields(Timeouts)}),
            limits=PoolLimits(options.connections, idle_seconds=job.seconds),
            pipelining=not options.no_pipelining,
            chunking=not options.no_chunking,
            overhear=shown.reply if shown.is_conversation else None,
        )
        bar = Bar(options.server, options.repeat) if options.repeat > 1 else None
        left = iter(range(options.repeat))
        senders = [
            ensureDeferred(_send(client, job, left, shown, bar))
            for _ in range(min(options.connections, options.repeat))
        ]
        for each in senders:
            await each
    except ValueError as error:
        status.append(_mistake(str(error)))
        return
    if bar is not None:
        bar.end()
    await client.close()
    shown.summary(options.repeat)
    status.append(shown.status)


async def _send(client: Client, job: Job, left: Any, shown: Shown, bar: Bar | None) -> None:
    """
    Send one message after the other while there are some *left*.
    """
    for _ in left:
        with job.letter.open() as file:
            began = time.monotonic()
            delivery = client.send(
                job.sender,
                job.recipients,
                file,
                body=job.options.body,
                xforward=job.xforward,
            )
            async for recipient, outcome in delivery:
                shown.outcome(recipient, outcome)
            shown.took(time.monotonic() - began)
        if bar is not None:
            bar.step()


class Shown:
    """
    Writes what is heard, and counts.
    """

    def __init__(self, *, quiet: bool, single: bool) -> None:
        self.is_conversation = single and not quiet
        self._quiet, self._single = quiet, single
        self._began = time.monotonic()
        self._accepted = self._refused = 0
        self._others: dict[str, int] = {}
        self._times: list[float] = []

    def reply(self, command: str, reply: HeardReply) -> None:
        """
        A *reply* to *command*.
        """
        if command:
            self._write(f"{'':9} > {command}\n")
        when = f"{time.monotonic() - self._began:9.3f}"
        for line in reply.wire_lines():
            self._write(f"{when} < {line}\n")
            when = f"{'':9}"

    def outcome(self, recipient: Recipient, outcome: Outcome) -> None:
        """
        What became of one recipient of one message.
        """
        if outcome.is_success:
            self._accepted += 1
        else:
            self._refused += 1
        said = str(outcome.reply)
        if outcome.detail:
            said += f" ({outcome.detail})"
        if self._single:
            if not (self._quiet and outcome.is_success):
                when = time.monotonic() - self._began
                self._write(f"{when:9.3f} = {recipient}: {said}\n")
        elif not outcome.is_success:
            line = f"{recipient}: {said}"
            self._others[line] = self._others.get(line, 0) + 1

    def _write(self, text: str) -> None:
        # What cannot be shown any more keeps nothing from being sent: the exit status tells the rest.
        show(text)

    def took(self, seconds: float) -> None:
        """
        How long one message took.
        """
        self._times.append(seconds)

    def summary(self, messages: int) -> None:
        """
        The last lines.
        """
        for line, count in sorted(self._others.items(), key=lambda each: -each[1])[:20]:
            self._write(f"{count:9} × {line}\n")
        if self._quiet:
            return
        seconds = time.monotonic() - self._began
        all_of_them = self._accepted + self._refused
        said = f"{self._accepted} of {all_of_them} recipients accepted in {seconds:.3f} s"
        if messages > 1:
            times = sorted(self._times)
            middle, late = times[len(times) // 2], times[len(times) * 99 // 100]
            said += (
                f", {messages / seconds:.0f} messages/s;"
                f" each {middle * 1000:.1f} ms, 1 % longer than {late * 1000:.1f} ms"
            )
        self._write(f"{said}\n")

    @property
    def status(self) -> int:
        """
        The exit status.
        """
        if not self._refused:
            return ALL
        return SOME if self._accepted else NONE
