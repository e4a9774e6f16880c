"""
``lmtpsvc send``: a message over LMTP or SMTP, with every reply as it comes.

The exit status says what became of the recipients, so that scripts need not read the output.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from attrs import fields, frozen
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from ..client import (
    TLS,
    Client,
    Dialect,
    Encryption,
    HeardReply,
    Login,
    Outcome,
    PoolLimits,
    Timeouts,
    address,
    own_name,
)
from ..envelope import Recipient, Sender
from .letter import Letter, letter
from .transfer import Bar

#: What the exit status says.
ALL, SOME, NONE = 0, 1, 2
#: EX_USAGE of sysexits.h: nothing was sent because of a mistake in the words.
MISTAKE: Final = 64

_EPILOG: Final = """\
TO is HOST:PORT, the path of a UNIX socket, or an endpoint string of Twisted's (unix:PATH,
tcp:HOST:PORT, tls:HOST:PORT).  FILE is the message, "-" reads it from standard input; without it a
short one is made up, and what is piped to the command is not read.  Lines may end with LF.

The exit status is 0 if all recipients were accepted, 1 if some were, 2 if none was, and 64 if the
words above were wrong.

  lmtpsvc send --to ann@example.org --to bob@example.org /run/lmtp.sock message.eml
  lmtpsvc send --smtp --tls must --auth me --password-file secret --to ann@example.org \\
               mail.example.org:587 message.eml
  lmtpsvc send --to ann@example.org --repeat 10000 --connections 20 127.0.0.1:8024
"""


class _Parser(argparse.ArgumentParser):
    """
    Tells a mistake in one line.
    """

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "lmtpsvc send",
        description="Sends a message over LMTP or SMTP, and shows every reply as it comes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("server", metavar="TO", help="where to: 127.0.0.1:8024, /run/lmtp.sock, ...")
    add("file", metavar="FILE", nargs="?", help="the message; default: a short one is made up")
    add("--to", metavar="ADDRESS", action="append", required=True, help="a recipient; repeatable")
    add("--from", dest="sender", metavar="ADDRESS", default="", help="default: the null sender <>")
    dialect = parser.add_mutually_exclusive_group()
    dialect.add_argument("--lmtp", action="store_true", help="speak LMTP (the default)")
    dialect.add_argument("--smtp", action="store_true", help="speak SMTP: one reply for all")
    add("--hello", metavar="NAME", help="what to say with LHLO; default: this machine's name")
    add("--body", choices=["7BIT", "8BITMIME", "BINARYMIME"], help="default: looked at")

    group = parser.add_argument_group("encryption and authentication")
    add = group.add_argument
    add(
        "--tls",
        choices=[each.value for each in TLS],
        default="none",
        help="STARTTLS: never, if it is offered, always, or always with a certificate that is"
        " verified; default: none",
    )
    add("--tls-name", metavar="HOST", default="", help="in whose name the certificate must be")
    add("--tls-authorities", metavar="FILE", help="PEM certificates to trust, not the system's")
    add("--tls-certificate", metavar="FILE", help="our own: PEM, with its key")
    add("--auth", metavar="USER", help="authenticate; the password is asked for")
    add("--password-file", metavar="FILE", help="read it from the first line of this file")
    add("--external", action="store_true", help="authenticate by --tls-certificate")
    add("--mechanism", action="append", help="SCRAM-SHA-256, PLAIN or LOGIN; repeatable")
    add("--in-the-clear", action="store_true", help="say the password without TLS, too")

    group = parser.add_argument_group("extensions")
    add = group.add_argument
    add("--xclient", metavar="NAME=VALUE", action="append", default=[], help="repeatable")
    add("--xforward", metavar="NAME=VALUE", action="append", default=[], help="repeatable")
    add("--notify", metavar="WHEN", help="never, or some of success,failure,delay (RFC 3461)")
    add("--ret", choices=["full", "hdrs"], help="what reports return (RFC 3461)")
    add("--envid", metavar="ID", help="what reports call this message (RFC 3461)")
    add("--no-pipelining", action="store_true", help="one command at a time")
    add("--no-chunking", action="store_true", help="DATA even where BDAT would do")

    group = parser.add_argument_group("how often, and how long")
    add = group.add_argument
    add("--repeat", metavar="N", type=_count, default=1, help="send it so many times")
    add("--connections", metavar="N", type=_count, default=1, help="so many at the same time")
    add("--timeout", metavar="SECONDS", type=_seconds, default=60.0, help="a reply; default: 60")
    add("--quiet", action="store_true", help="show nothing but what was not accepted")
    return parser


def main(words: Sequence[str]) -> int:
    """
    Send what *words* say; returns the exit status.
    """
    try:
        job = _job(_parser().parse_args(words))
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


@frozen
class _Job:
    """
    What is to be sent, and how.
    """

    options: argparse.Namespace
    sender: Sender
    recipients: tuple[Recipient, ...]
    letter: Letter
    login: Login | None
    encryption: Encryption
    xclient: dict[str, str | None]
    xforward: dict[str, str | None]
    seconds: float


def _job(options: argparse.Namespace) -> _Job:
    """
    Make sense of the words.

    Raises:
        ValueError, OSError: They are wrong.
    """
    parameters = {
        name: value
        for name, value in (
            ("RET", options.ret and options.ret.upper()),
            ("ENVID", options.envid),
        )
        if value
    }
    notify = {"NOTIFY": options.notify.upper()} if options.notify else {}
    recipients = tuple(Recipient(address(each), notify) for each in options.to)
    sender = Sender(address(options.sender) if options.sender else None, parameters)
    return _Job(
        options,
        sender,
        recipients,
        letter(options.file, sender, recipients, binary=options.body == "BINARYMIME"),
        _login(options),
        Encryption(options.tls_name, options.tls_authorities, options.tls_certificate),
        _attributes(options.xclient),
        _attributes(options.xforward),
        options.timeout,
    )


def _login(options: argparse.Namespace) -> Login | None:
    if options.external:
        return Login(None)
    if options.auth is None:
        if options.password_file is not None:
            raise ValueError("--password-file says no user: --auth does")
        return None
    if options.password_file is not None:
        with open(options.password_file, encoding="utf-8") as file:
            password = file.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(f"Password of {options.auth}: ")
    else:
        raise ValueError("--auth needs --password-file where nobody can be asked")
    mechanisms = tuple(each.upper() for each in options.mechanism or ())
    return Login(options.auth, password, mechanisms, options.in_the_clear)


def _attributes(words: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise ValueError(f"{word}: expected NAME=VALUE")
        found[name.upper()] = value
    return found


def _count(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word)):
        raise argparse.ArgumentTypeError(f"{word!r} is no number from 1 on")
    return int(word)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds")
    return seconds


# ── sending ──────────────────────────────────────────────────────────────────────────────────────


async def _run(reactor: Any, job: _Job, status: list[int]) -> None:
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


async def _send(client: Client, job: _Job, left: Any, shown: Shown, bar: Bar | None) -> None:
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
        """
        What cannot be shown any more keeps nothing from being sent: the exit status tells the rest.
        """
        try:
            if sys.stdout is not None:
                sys.stdout.write(text)
                sys.stdout.flush()
        except OSError:
            sys.stdout = None  # as Python has it where there is none

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
