"""
Whether one could listen somewhere, without doing it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any

from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ..server.listening import SMTP_PORT
from ..specs import LONGEST_PATH
from ..values import split_terms
from .listeners import is_unix_socket_of_systemd, listener


def look_at_listener(
    words: str, reactor: Any, *, probe: bool = True, for_smtp: bool = False
) -> None:
    """
    Look whether the endpoint *words* is one, and if *probe*, whether it is free.  Only what is
    *for_smtp* may be on the port of SMTP.

    Raises:
        ValueError: It is not; the text is one line.
    """
    said = split_terms(words)[1]
    if said.startswith("systemd:") and not is_unix_socket_of_systemd(said):
        # Nothing of it is there, unless systemd has started us.
        return
    probing = _ProbingReactor(reactor, for_smtp=for_smtp)
    endpoint = listener(words, probing, for_smtp=for_smtp).endpoint
    if not probe:
        return
    failures: list[Failure] = []
    endpoint.listen(Factory()).addErrback(failures.append)
    for failure in failures:
        error = failure.value
        raise ValueError(f"{words}: {getattr(error, 'strerror', None) or error}") from error


class _ProbingReactor:
    """
    Stands in for *reactor* where an endpoint is made: whatever kind it is, and whatever it is
    wrapped in, it ends in one of these calls.
    """

    def __init__(self, reactor: Any, *, for_smtp: bool) -> None:
        self._reactor, self._for_smtp = reactor, for_smtp

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((interface, port))
            if not self._for_smtp and probe.getsockname()[1] == SMTP_PORT:
                raise ValueError("LMTP must not be on port 25 (RFC 2033)")

    def listenSSL(
        self,
        port: int,
        factory: object,
        contextFactory: object,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self,
        address: str,
        factory: object,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> None:
        if len(os.fsencode(address)) > LONGEST_PATH:
            raise ValueError(f"a path of more than {LONGEST_PATH} octets")
        directory = os.path.dirname(address) or "."
        look_at_directory(directory)
        try:
            found = os.lstat(address)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise FileExistsError(errno.EEXIST, "something is there that is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            # What was left behind by a process that was killed is refused, and no problem.
            if probe.connect_ex(address) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def adoptStreamPort(self, *_: object) -> None: ...


def look_at_directory(path: str) -> None:
    """
    Look whether *path* is a directory in which files can be made.

    Raises:
        ValueError: It is not; the text is one line.
    """
    if not os.path.isdir(path):
        there = "is not a directory" if os.path.lexists(path) else "is not there"
        raise ValueError(f"{path} {there}")
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        raise ValueError(f"{path} is not writable for user {os.geteuid()}")


def look_at_file(path: str) -> None:
    """
    Look whether the file *path* can be written to, or made.

    Raises:
        ValueError: It cannot; the text is one line.
    """
    directory, name = os.path.split(path)
    try:
        os.stat(path)
    except FileNotFoundError:
        if not name:
            raise ValueError(f"{path!r} is no file") from None
        look_at_directory(directory or ".")
        return
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if os.path.isdir(path):
        raise ValueError(f"{path} is a directory")
    if not os.access(path, os.W_OK, effective_ids=True):
        raise ValueError(f"{path} is not writable for user {os.geteuid()}")
