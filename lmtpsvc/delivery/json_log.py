"""
The log of deliveries as JSON, one object per line, for programs.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from typing import TextIO

from twisted.application.service import Service
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from zope.interface import implementer

from .log import NAMESPACE

_log = Logger(namespace="lmtpsvc.json_log")

# `json.dumps` makes another each time.
_encode = json.JSONEncoder(ensure_ascii=False).encode

_FIELDS = (
    "transaction",
    "client",
    "client_name",
    "sender",
    "recipient",
    "original_recipient",
    "envelope_id",
    "mailbox",
    "size",
    "reply",
    "reply_code",
    "lookup_seconds",
    "store_seconds",
    "total_seconds",
    "login",
    "session",
    "origin_ident",
    "origin_client",
    "origin_protocol",
)


class _Quietly:
    """
    One line when the file cannot be written any more, instead of a traceback for each recipient.
    """

    _failed = False

    def format(self, record: logging.LogRecord) -> str:
        # Nobody has given us a formatter, and the standard one looks for more than there is.
        return record.getMessage()

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._failed:
            self._failed = True
            _log.error("the JSON log is not written: {error}", error=sys.exc_info()[1])


class _File(_Quietly, logging.handlers.WatchedFileHandler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            # Moved away, and no right to make it anew.
            self.handleError(record)


class _StandardOutput(_Quietly, logging.StreamHandler[TextIO]):
    pass


class JSONLog(Service):
    """
    While it runs, writes what `lmtpsvc.delivery.log` says through *handler*, each event with its
    ``time`` in seconds since the epoch.
    """

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._observer = _Observer(handler)

    @classmethod
    def to(cls, path: str) -> JSONLog:
        """
        To a file that is opened anew when somebody has moved it away; ``-`` is standard output.

        Raises:
            OSError: It cannot be opened.
        """
        if path == "-":
            return cls(_StandardOutput(sys.stdout))
        return cls(_File(path, encoding="utf-8"))

    def startService(self) -> None:
        super().startService()
        globalLogPublisher.addObserver(self._observer)

    def stopService(self) -> None:
        super().stopService()
        globalLogPublisher.removeObserver(self._observer)
        self._handler.close()


@implementer(ILogObserver)
class _Observer:
    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") != NAMESPACE:
            return
        said = {"time": event["log_time"]}
        for name in _FIELDS:
            if name in event:
                said[name] = event[name]
        line = _encode(said)
        self._handler.handle(logging.makeLogRecord({"msg": "%s", "args": (line,)}))
