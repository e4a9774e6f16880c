"""
The words of ``twistd lmtp-relay``, and the file that ``--config`` names.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .backends.sql.engine import parse
from .config import BrokenConfig, Problem
from .options import ListeningOptions
from .relay.config import DEFAULT_LISTEN, DEFAULT_LOCAL, RelayConfig
from .relay.queue import DEFAULT as DEFAULT_QUEUE
from .wiring.relay import RelayParts, make_relay_parts
from .wiring.resolver import SystemResolver
from .wiring.sources import Sources


class RelayOptions(ListeningOptions):
    """
    What ``twistd lmtp-relay`` understands.

    Afterwards, *parts* are what its *config* asks for.
    """

    longdesc = (
        "Receives mail over SMTP, keeps it in a queue until it has arrived, and passes it on: over"
        " LMTP to where our own domains are, over SMTP to all others.  With no options: mail from"
        f" this machine only ({DEFAULT_LISTEN}), for the domain of this host to {DEFAULT_LOCAL},"
        " for others by MX, with the queue in ./queue.db."
    )

    program = "twistd lmtp-relay"
    of = RelayConfig
    is_for_smtp = True
    lists = (*ListeningOptions.lists, "domain", "networks", "route")

    optParameters: ClassVar[list[list[Any]]] = [
        ["users", "u", None,
         "Who lives in our domains, so that others are refused at once; see --help-users"],
        ["local", None, DEFAULT_LOCAL,
         "Where mail for our domains goes that have no --route: as there"],
        ["smart-host", None, None,
         "Where mail for all other domains goes, as for --route.  Default: to their MX"],
        ["queue", None, DEFAULT_QUEUE, "Database with the queue: an SQLAlchemy URL"],
        ["retry-after", None, "5m,10m,20m,40m,80m,160m,4h",
         "Pauses before further attempts for a recipient; the last one again and again"],
        ["retry-server", None, "60", "Pause before a server that is down is tried again"],
        ["warn-after", None, "4h", "Tell the sender then that a message is delayed"],
        ["give-up-after", None, "5d", "Return a message to its sender then"],
        ["connections-per-server", None, "10", "Deliveries to one destination at a time"],
    ]  # fmt: skip

    sources: Sources[RelayConfig]
    config: RelayConfig
    parts: RelayParts
    resolver: SystemResolver

    def opt_listen(self, words: str) -> None:
        """
        A Twisted endpoint to listen on: tcp:25, tcp:2525:interface=127.0.0.1, unix:/run/relay.sock,
        tls:tcp:465 (TLS from the first octet on, with --tls-certificate).  In front of it may stand what it
        asks of clients: proxied:, tls:, tls-required:, login-required: (tcp:587, for submission).  May be repeated.  [default: tcp:8025:interface=127.0.0.1]
        """
        self["listen"].append(words)

    opt_l = opt_listen

    def opt_domain(self, words: str) -> None:
        """
        Domains of our own, with commas between: mail for them is taken from everybody.  May be repeated.  Default: the name of this host
        """
        self["domain"].append(words)

    opt_d = opt_domain

    def opt_networks(self, words: str) -> None:
        """
        Who may send mail to all domains without logging in: networks with commas between,
        192.0.2.0/24,2001:db8::7, and local for UNIX sockets.  May be repeated.  [default: 127.0.0.0/8,::1,local]
        """
        self["networks"].append(words)

    def opt_route(self, words: str) -> None:
        """
        Where mail for a domain goes: example.org=lmtp:unix:/run/lmtp.sock,
        *.example.net=smtp:mx.example.net:25:tls=must, several servers with commas between.  May be repeated
        """
        self["route"].append(words)

    def postOptions(self) -> None:
        """
        Turn words into objects here, where a mistake is still a usage error.
        """
        self.take_words()
        self.config = self.sources.read()
        self["listeners"] = self.listeners([self.reactor] * len(self.config.listen))
        try:
            parse(self.config.queue)
        except ValueError as error:
            raise BrokenConfig([Problem(("queue",), str(error))]) from error
        self.resolver = SystemResolver(self.reactor)
        self.parts = make_relay_parts(self.config, self.reactor, self.resolver)
        self["json-log"] = self.json_log()

    def parts_again(self) -> RelayParts:
        """
        The parts that file and command line ask for now.

        Raises:
            BrokenConfig: With all problems.
        """
        return self.sources.again(
            lambda config: make_relay_parts(config, self.reactor, self.resolver)
        )

    def fixed(self, config: RelayConfig) -> list[str]:
        """
        The keys that *config* would change, but for which it is too late while the service runs.
        """
        names = (
            *("listen", "listeners", "json_log", "hostname", "queue"),
            *(
                "retry_after",
                "retry_server",
                "warn_after",
                "give_up_after",
                "connections_per_server",
            ),
        )
        return self.changed(config, names)
