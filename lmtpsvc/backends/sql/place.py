"""
A SQLite file, and what stands in its place.

An open file that is removed, or that another is put in place of, stays what SQLite reads and writes:
what is committed there is gone with the last who has it open.  And the write-ahead log is beside the
file, by its name: whoever opens the new file while there is the log of the old one mixes the two.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

#: Which file a connection has, among what its entry of the pool remembers.
_FILE: Final = "lmtpsvc_file"


def stay_at(engine: Engine, path: str, *, is_replaceable: bool = False) -> None:
    """
    Look, whenever *engine* gives out a connection, whether its file is still at *path*.

    If not, the connection is made anew where *is_replaceable*, as for what is only read.  Else it
    fails, until the file is back or the process starts again: an empty one is not what was there,
    and whoever has taken it away may be about to bring another.
    """
    first: tuple[int, int] | None = None

    @event.listens_for(engine, "do_connect")
    def look(_dialect: Any, _entry: Any, _words: Any, _more: Any) -> None:
        found = _file(path)
        if first is not None and found is None:
            raise sqlite3.OperationalError(f"{path} is not there any more")
        if first is not None and found != first and not is_replaceable:
            raise sqlite3.OperationalError(f"{path} is another file now: restart the service")

    @event.listens_for(engine, "connect")
    def remember(_connection: Any, entry: ConnectionPoolEntry) -> None:
        nonlocal first
        entry.info[_FILE] = found = _file(path)
        first = first or found

    @event.listens_for(engine, "checkout")
    def compare(_connection: Any, entry: ConnectionPoolEntry, _proxy: Any) -> None:
        if entry.info[_FILE] != _file(path):
            raise DisconnectionError(f"{path} is another file")


def _file(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
