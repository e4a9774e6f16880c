"""
The command that starts a worker, from the one that started its supervisor.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen


@frozen
class Account:
    """
    The user and group that the service runs as, where twistd changes to them once it listens.
    """

    uid: int
    gid: int

    @classmethod
    def of(cls, parent: Mapping[str, Any] | None) -> Account | None:
        """
        From what twistd understood; None if it stays who it is.
        """
        said = parent or {}
        uid, gid = said.get("uid"), said.get("gid")
        if uid is None and gid is None:
            return None
        uid = os.getuid() if uid is None else uid
        return cls(uid, pwd.getpwuid(uid).pw_gid if gid is None else gid)


@frozen
class Command:
    """
    The words of ``twistd lmtp``, those of twistd itself that its workers need, and the *directory*
    in which they were read: a relative path among them means the same in a worker.

    *log* is the file that the supervisor logs to, if it does; each worker has one beside it.
    *systemd* is how many descriptors systemd has handed over.
    """

    words: Sequence[str]
    twistd: Sequence[str]
    directory: str
    log: str | None = None
    syslog: str | None = None
    systemd: int = 0

    @classmethod
    def of(cls, parent: Mapping[str, Any] | None, words: Sequence[str]) -> Command:
        """
        From what twistd, or twist, understood: *parent*.
        """
        said = parent or {}
        twistd: list[str] = []
        # twist has the reactor itself under the name that is its name in twistd.
        reactor = said.get("reactorName", said.get("reactor"))
        if reactor is not None:
            twistd += ["--reactor", reactor]
        if said.get("rundir", ".") != ".":
            twistd += ["--rundir", said["rundir"]]
        log = syslog = None
        if said.get("logger") is not None:
            twistd += ["--logger", said["logger"]]
        elif said.get("syslog"):
            syslog = said["prefix"]
        elif said.get("logfile") not in {None, "-"}:
            log = said["logfile"]
        elif not said.get("nodaemon", True):
            log = "twistd.log"
        # Twisted has taken the number out of the environment when it was imported; it takes no
        # descriptors that have no names.
        names = os.environ.get("LISTEN_FDNAMES")
        systemd = len(names.split(":")) if names else 0
        return cls(words, twistd, os.getcwd(), log and os.path.abspath(log), syslog, systemd)

    def environment(self) -> dict[str, str]:
        """
        The environment of a worker.
        """
        systemd = {"LISTEN_FDS": str(self.systemd)} if self.systemd else {}
        return {**os.environ, **systemd}

    def log_of(self, number: int) -> str | None:
        """
        The log file of a worker: ``twistd-worker1.log`` beside ``twistd.log``.

        Not with a further suffix: twistd takes everything that ends in a number for an old log.
        """
        if self.log is None:
            return None
        stem, suffix = os.path.splitext(self.log)
        return f"{stem}-worker{number}{suffix}"

    def arguments(self, number: int) -> list[str]:
        """
        The program and its arguments.
        """
        # The module must not be found in the working directory, unless modules are found there.
        safe = [] if {"", self.directory} & set(sys.path) else ["-P"]
        log = self.log_of(number)
        return [
            *(sys.executable, *safe, "-m", "lmtpsvc.server"),
            *("--nodaemon", "--pidfile=", *self.twistd),
            *(["--logfile", log] if log is not None else []),
            *(["--syslog", "--prefix", f"{self.syslog}/worker{number}"] if self.syslog else []),
            *("lmtp", *self.words),
        ]
