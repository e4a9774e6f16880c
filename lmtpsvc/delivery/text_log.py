"""
The log of deliveries in twistd's text log: the same lines, in a tenth of the time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogPublisher,
    formatTime,
    globalLogPublisher,
    textFileLogObserver,
)

from .log import DELIVERY, NAMESPACE, REFUSAL

#: What makes the text of an event, line feed included; None if there is nothing to say.
Formatter = Callable[[LogEvent], str | None]

_SYSTEM = f"[{NAMESPACE}#{LogLevel.info.name}]"


class TextLog(Service):
    """
    While it runs, the text logs that *publisher* has by then, as twistd makes them, take the short
    way to the lines of deliveries.

    Where and how they write stays theirs; every other log stays as it is.
    """

    def __init__(self, publisher: LogPublisher = globalLogPublisher) -> None:
        self._publisher = publisher
        self._shortened: list[tuple[FileLogObserver, DeliveryText]] = []

    def startService(self) -> None:
        super().startService()
        # Twisted tells nobody who listens.  Where it keeps them elsewhere, nothing is shortened.
        observers: Iterable[ILogObserver] = getattr(self._publisher, "_observers", ())
        for observer in observers:
            if type(observer) is FileLogObserver and _is_standard(observer.formatEvent):
                short = DeliveryText(observer.formatEvent)
                observer.formatEvent = short
                self._shortened.append((observer, short))

    def stopService(self) -> None:
        super().stopService()
        for observer, short in self._shortened:
            # Somebody may have put something else there since.
            if observer.formatEvent is short:
                observer.formatEvent = short.otherwise
        self._shortened.clear()


def _is_standard(formatter: Any) -> bool:
    """
    It is what `twisted.logger.textFileLogObserver` makes if it is told nothing but the file.
    """
    standard: Any = textFileLogObserver(io.StringIO()).formatEvent
    code = getattr(standard, "__code__", None)
    if code is None or getattr(formatter, "__code__", None) is not code:
        return False
    told, standard_told = formatter.__closure__ or (), standard.__closure__ or ()
    return [cell.cell_contents for cell in told] == [cell.cell_contents for cell in standard_told]


class DeliveryText:
    """
    The text of an event, octet by octet what *otherwise*, the standard formatter, makes of it.

    It asks *otherwise* for whatever is not as `lmtpsvc.delivery.log` has made it.
    """

    __slots__ = ("_beginning", "otherwise")

    def __init__(self, otherwise: Formatter) -> None:
        self.otherwise = otherwise
        # The last second that was asked for, and what a line begins with then.
        self._beginning = (-1, "")

    def __call__(self, event: LogEvent) -> str | None:
        try:
            text = self._text(event)
        except Exception:
            # A field is not there, or cannot be shown: another observer may have changed it.
            text = None
        return self.otherwise(event) if text is None else text

    def _text(self, event: LogEvent) -> str | None:
        """
        Raises:
            Exception: The event is not a whole one.
        """
        if (
            event["log_namespace"] != NAMESPACE
            or event["log_level"] is not LogLevel.info
            # What others may have added.
            or event.get("log_system") is not None
            or "log_flattened" in event
            or "log_failure" in event
        ):
            return None
        log_format = event["log_format"]
        if log_format == DELIVERY:
            said = f"{event['line']}"
        elif log_format == REFUSAL:
            said = (
                f"refused to=<{event['recipient']}> from=<{event['sender']}>"
                f" client={event['client']}{event['told']} reply={event['reply']}"
            )
        else:
            return None
        time = event["log_time"]
        second = int(time)
        # Twisted rounds to microseconds, up too; and before 1970, to the other side.
        if not (said and 0 <= time - second < 0.999999):
            return None
        begun, beginning = self._beginning
        if second != begun:
            # Local time may have another offset from any second on, but not within one.
            beginning = f"{formatTime(time)} {_SYSTEM} "
            self._beginning = second, beginning
        if "\n" in said:
            said = said.replace("\n", "\n\t")
        return f"{beginning}{said}\n"
