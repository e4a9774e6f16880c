"""
The words behind ``lmtpsvc send``, and what they mean.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from attrs import frozen

from ..client import TLS, Encryption, Login, address
from ..envelope import Recipient, Sender
from .letter import Letter, letter

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


@frozen
class Job:
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


def job_of(words: Sequence[str]) -> Job:
    """
    Make sense of *words*.

    Raises:
        ValueError, OSError: They are wrong.
        SystemExit: They ask for help, which has been given.
    """
    options = _parser().parse_args(words)
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
    return Job(
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
