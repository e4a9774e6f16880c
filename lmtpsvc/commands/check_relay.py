"""
``lmtpsvc check-relay``: the same as ``lmtpsvc check`` for a relay.

The database with the queue is looked at, but no table is made; the DNS is asked where mail for the
addresses goes that are given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ..backends.sql import versions
from ..backends.sql.engine import parse
from ..backends.sql.failures import in_words
from ..relay.config import RelayConfig
from ..relay.routes import Route
from ..relay.tables import QUEUE
from ..relay_options import RelayOptions
from ..wiring.probe import look_at_directory, look_at_file
from ..wiring.relay import RelayParts, make_relay_parts
from ..wiring.resolver import SystemResolver
from .check import Check, CheckingOptions, tell
from .where import answer, mailboxes


class CheckRelayOptions(CheckingOptions, RelayOptions):
    """
    What ``lmtpsvc check-relay`` understands.
    """

    program = "lmtpsvc check-relay"
    synopsis = "Usage: lmtpsvc check-relay [options] [FILE] [ADDRESS...]"
    longdesc = (
        "Tells everything that is wrong with FILE, and with the options of twistd lmtp-relay if some"
        " are given; then which servers get mail for each ADDRESS.  The exit status is 0 if nothing"
        " is wrong and there is a server for each ADDRESS."
    )


def main(words: Sequence[str]) -> int:
    """
    Check what *words* say; returns the exit status.
    """
    options = CheckRelayOptions()
    options.parseOptions(list(words))
    return tell(options, RelayCheck(options), servers)


class RelayCheck(Check[RelayConfig, RelayParts]):
    """
    Of ``twistd lmtp-relay``.
    """

    def make(self, config: RelayConfig) -> RelayParts:
        reactor: Any = self.options.reactor
        return make_relay_parts(config, reactor, SystemResolver(reactor))

    def look_at_the_rest(self, config: RelayConfig) -> None:
        self.look(("queue",), look_at_queue, config.queue)


def look_at_queue(words: str) -> None:
    """
    Look whether there is a queue at the URL *words* that could be used, or could be made.

    Raises:
        ValueError: There is not; the text is one line.
    """
    database = parse(words)
    path = database.path
    if path is not None:
        # Not opened: SQLite would make files beside it, which were ours and not the service's.
        look_at_directory(os.path.dirname(path))
        if os.path.lexists(path):
            look_at_file(path)
        return
    engine = database.engine(1)
    try:
        with engine.connect() as connection:
            versions.check(connection, QUEUE)
    except SQLAlchemyError as error:
        raise ValueError(f"{database}: {in_words(error)}") from error
    except versions.SchemaError as error:
        # What is missing, or old, is made new at the start.
        if not error.can_upgrade:
            raise ValueError(f"{database}: {error}") from error
    finally:
        engine.dispose()


async def servers(parts: RelayParts, text: str) -> list[str]:
    """
    Which servers get mail for the address *text*: a line for each recipient that it stands for.

    Raises:
        Refused: None would.
    """
    lines = []
    for mailbox in await mailboxes(parts.rules, parts.directory, text):
        route: Route = await answer(partial(parts.router.route, mailbox.domain))
        hops = ", ".join(f"{hop.dialect.value.lower()}:{hop.to}" for hop in route.hops)
        lines.append(f"{text} -> {mailbox} by {hops}")
    return lines
