"""
A SQLite file, and what stands in its place.

An open file that is removed, or that another is put in place of, stays what SQLite reads and writes:
what is committed there is gone with the last who has it open.  And the write-ahead log is beside the
file, by its name: whoever opens the new file while there is the log of the old one mixes the two.
It is the same if somebody takes away the log, or its index
(https://sqlite.org/howtocorrupt.html#unlink_or_rename_a_database_file_while_in_use).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

#: Which file a connection has, and which there are beside it, among what its entry of the pool remembers.
_FILE: Final = "lmtpsvc_file"
_BESIDE: Final = "lmtpsvc_beside"

# Device and inode.
_Identity = tuple[int, int]


def stay_at(engine: Engine, path: str, *, is_replaceable: bool = False) -> None:
    """
    Look, whenever *engine* gives out a connection, whether its file is still at *path*.

    If not, the connection is made anew where *is_replaceable*, as for what is only read.  Else it
    fails, until the file is back or the process starts again: an empty one is not what was there,
    and whoever has taken it away may be about to bring another.  What is written ahead must be where
    it was, too; if it is not, nothing brings it back, and everything fails until a new start.
    """
    first: _Identity | None = None
    missing: str | None = None

    @event.listens_for(engine, "do_connect")
    def look(_dialect: Any, _entry: Any, _words: Any, _more: Any) -> None:
        found = _file(path)
        if first is not None and found is None:
            raise sqlite3.OperationalError(f"{path} is not there any more")
        if first is not None and found != first and not is_replaceable:
            raise sqlite3.OperationalError(f"{path} is another file now: restart the service")
        if missing is not None:
            raise sqlite3.OperationalError(f"{missing} was removed: restart the service")

    @event.listens_for(engine, "connect")
    def remember(connection: Any, entry: ConnectionPoolEntry) -> None:
        nonlocal first
        entry.info[_FILE] = found = _file(path)
        first = first or found
        if not is_replaceable:
            # In a new file, there is no log before something is read.
            connection.execute("PRAGMA schema_version").close()
            entry.info[_BESIDE] = _beside(path)

    @event.listens_for(engine, "checkout")
    def compare(connection: Any, entry: ConnectionPoolEntry, _proxy: Any) -> None:
        nonlocal missing
        if entry.info[_FILE] != _file(path):
            raise DisconnectionError(f"{path} is another file")
        if is_replaceable:
            return
        beside = entry.info[_BESIDE]
        found = {name: _file(name) for name in beside}
        for name, file in beside.items():
            if found[name] != file:
                missing = name
                _save(connection, found)
                raise DisconnectionError(f"{name} was removed")


def _save(connection: Any, beside: dict[str, _Identity | None]) -> None:
    """
    Bring what was acknowledged from the log, which has no name any more, into the file itself, unless
    somebody has begun another one: the index would tell of the two of them.
    """
    log, index = beside.values()
    if log is None and index is not None:
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()


def _beside(path: str) -> dict[str, _Identity | None]:
    """
    The log, and its index: where they are, and which files that is.
    """
    real = os.path.realpath(path)
    return {name: _file(name) for name in (f"{real}-wal", f"{real}-shm")}


def _file(path: str) -> _Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
