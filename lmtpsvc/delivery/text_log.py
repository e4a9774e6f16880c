"""
The log of deliveries in twistd's text log: the same lines, in a tenth of the time.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    formatTime,
    globalLogPublisher,
    textFileLogObserver,
)

from .held_lines import HELD, write_out
from .log import DELIVERY, NAMESPACE, REFUSAL

_log = Logger(namespace="lmtpsvc.text_log")

#: So many lines wait for others, at most.
MOST_HELD: Final = 100

# An event that is none: what waits is written.
_NOTHING: Final[LogEvent] = {}

#: What makes the text of an event, line feed included; None if there is nothing to say.
Formatter = Callable[[LogEvent], str | None]

_SYSTEM = f"[{NAMESPACE}#{LogLevel.info.name}]"


class TextLog(Service):
    """
    While it runs, the text logs that *publisher* has by then, as twistd makes them, take the short
    way to the lines of deliveries.

    Where and how they write stays theirs; every other log stays as it is.  With a *clock*, lines that
    others follow at once are written together with them, see `held_lines`.
    """

    def __init__(
        self,
        publisher: LogPublisher = globalLogPublisher,
        clock: IReactorTime | None = None,
    ) -> None:
        self._publisher, self._clock = publisher, clock
        self._shortened: list[tuple[FileLogObserver, DeliveryText]] = []

    def startService(self) -> None:
        super().startService()
        # Twisted tells nobody who listens.  Where it keeps them elsewhere, nothing is shortened.
        observers: Iterable[ILogObserver] = getattr(self._publisher, "_observers", ())
        for observer in observers:
            if type(observer) is FileLogObserver and _is_standard(observer.formatEvent):
                short = DeliveryText(observer.formatEvent)
                if self._clock is not None:
                    short.hold(observer, self._clock)
                observer.formatEvent = short
                self._shortened.append((observer, short))

    def stopService(self) -> None:
        super().stopService()
        write_out()
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

    __slots__ = ("_beginning", "_clock", "_held", "_observer", "otherwise")

    def __init__(self, otherwise: Formatter) -> None:
        self.otherwise = otherwise
        # Lines that wait to be written by the observer.  Other threads log, too: each is taken out once.
        self._held: deque[str] = deque()
        self._observer: ILogObserver | None = None
        self._clock: IReactorTime | None = None
        # The last second that was asked for, and what a line begins with then.
        self._beginning = (-1, "")

    def hold(self, observer: ILogObserver, clock: IReactorTime) -> None:
        """
        Let lines wait for those that follow at once; *observer* is who writes what comes from here.
        """
        self._observer, self._clock = observer, clock

    def __call__(self, event: LogEvent) -> str | None:
        if event is _NOTHING:
            text = None
        else:
            try:
                text = self._text(event)
            except Exception:
                # A field is not there, or cannot be shown: another observer may have changed it.
                text = None
            if text is None:
                text = self.otherwise(event)
            elif "more_follow" in event and self._clock is not None and len(self._held) < MOST_HELD:
                if not self._held:
                    HELD.append(self._write_held)
                    self._clock.callLater(0, write_out)
                self._held.append(text)
                return None
        return self._take_held() + (text or "") if self._held else text

    def _take_held(self) -> str:
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(self._held.popleft())
        return "".join(lines)

    def _write_held(self) -> None:
        if self._held and self._observer is not None:
            try:
                self._observer(_NOTHING)
            except Exception:
                # As it is with a publisher: who has asked for a reply is not to pay for it.
                _log.failure("the log cannot be written")

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
