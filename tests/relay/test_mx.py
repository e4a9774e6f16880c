"""
Where mail for a domain goes, according to the DNS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import TimeoutError
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError
from twisted.python.failure import Failure

from lmtpsvc.client import TLS
from lmtpsvc.errors import DeliveryError, PermanentFailure, TemporaryFailure
from lmtpsvc.relay.mx import MXRoutes
from lmtpsvc.relay.routes import ConfiguredRoutes, Hop, Route, to_hops


class Names:
    """
    A resolver that knows *mx* (preference and host, or what it fails with) and *addresses*.
    """

    def __init__(self, mx: Any = (), addresses: Any = (), v6: Any = ()) -> None:
        self._mx, self._addresses, self._v6 = mx, addresses, v6
        self.asked: list[str] = []

    def _answer(self, name: str, records: Any) -> Deferred[Any]:
        self.asked.append(name)
        if isinstance(records, Exception):
            return fail(records)
        alias = dns.RRHeader(name, dns.CNAME, payload=dns.Record_CNAME("other"))
        answers = [dns.RRHeader(name, record.TYPE, payload=record) for record in records]
        return succeed(([alias, *answers], [], []))

    def lookupMailExchange(self, name: str) -> Deferred[Any]:
        mx = self._mx
        if not isinstance(mx, Exception):
            mx = [dns.Record_MX(preference, host) for preference, host in mx]
        return self._answer(name, mx)

    def lookupAddress(self, name: str) -> Deferred[Any]:
        return self._answer(name, [dns.Record_A(each) for each in self._addresses])

    def lookupIPV6Address(self, name: str) -> Deferred[Any]:
        return self._answer(name, [dns.Record_AAAA(each) for each in self._v6])


def route(names: Names, domain: str = "example.org", **more: Any) -> Deferred[Route]:
    routes = MXRoutes(names, "relay.example.net", shuffle=list.reverse, **more)
    return asked(routes, domain)


def asked(routes: Any, domain: str) -> Deferred[Any]:
    """
    What *routes* say of a domain, at once or later.
    """
    return maybeDeferred(routes.route, domain)


def hosts(found: Route) -> list[str]:
    return [hop.to for hop in found.hops]


class TestMX:
    def test_order(self, success_of: Callable[..., Any]) -> None:
        """
        By preference; equal ones in an order of chance, and with the same name whichever that is.
        """
        mx = [(20, "c.example"), (10, "A.example."), (10, "b.example")]
        found = success_of(route(Names(mx)))

        assert hosts(found) == ["b.example:25", "a.example:25", "c.example:25"]
        assert found.name == success_of(route(Names(mx[::-1]))).name
        assert {hop.tls for hop in found.hops} == {TLS.MAY}

    def test_a_few(self, success_of: Callable[..., Any]) -> None:
        """
        Nobody is asked for dozens of servers.
        """
        assert len(success_of(route(Names([(n, f"h{n}.example") for n in range(50)]))).hops) == 5

    def test_no_host(self, success_of: Callable[..., Any]) -> None:
        """
        The DNS has any octets; what can be no host is left out, and what only looks odd is not.
        """
        wrong: list[Any] = ["http://mail.example", "ann@example.org", "a b.example", "", b"x" * 64]
        mx: list[tuple[int, Any]] = [(n, host) for n, host in enumerate(wrong)]
        mx += [(7, b"ma\xefl.example"), (8, "a_b.example"), (9, "192.0.2.1"), (9, "2001:db8::1")]

        assert hosts(success_of(route(Names(mx)))) == [
            *("a_b.example:25", "[2001:db8::1]:25", "192.0.2.1:25")
        ]

    @pytest.mark.parametrize("kind", ["addresses", "v6"])
    def test_no_mx(self, kind: str, success_of: Callable[..., Any]) -> None:
        """
        A domain without MX that has an address is its own server.
        """
        address = {"addresses": "192.0.2.1", "v6": "2001:db8::1"}[kind]
        assert hosts(success_of(route(Names(**{kind: [address]})))) == ["example.org:25"]

    def test_ourselves(self, success_of: Callable[..., Any]) -> None:
        """
        Those that are no better than we are left out.
        """
        mx = [(5, "a.example"), (10, "Relay.Example.NET"), (10, "b.example"), (20, "c.example")]
        assert hosts(success_of(route(Names(mx)))) == ["a.example:25"]

    def test_internationalised(self, success_of: Callable[..., Any]) -> None:
        """
        Asked for as DNS has it.
        """
        names = Names([(1, "a.example")])
        success_of(route(names, "bücher.example"))
        assert names.asked == ["xn--bcher-kva.example"]

    @pytest.mark.parametrize(
        ("names", "reply"),
        [
            (Names([(0, "")]), "556 5.1.10 The domain takes no mail"),
            (
                Names([(1, "http://mail.example"), (2, b"\xff.example")]),
                "550 5.4.4 The mail servers of the domain have no good names",
            ),
            (Names(), "550 5.1.2 The domain has no mail server"),
            (Names(DNSNameError()), "550 5.1.2 There is no such domain"),
            (Names(DNSServerError()), "451 4.4.3 The domain cannot be looked up"),
            (Names(TimeoutError()), "451 4.4.3 The domain cannot be looked up"),
            (
                Names([(1, "relay.example.net"), (2, "x.example")]),
                "550 5.4.6 Mail for the domain loops back to us",
            ),
        ],
    )
    def test_nowhere(self, names: Names, reply: str, failure_of: Callable[..., Failure]) -> None:
        """
        What is not there is for good, what is not known for now.
        """
        error = failure_of(route(names), PermanentFailure, TemporaryFailure).value
        assert isinstance(error, DeliveryError)
        assert str(error.reply) == reply

    @pytest.mark.parametrize(
        ("literal", "to"),
        [("[192.0.2.1]", "192.0.2.1:25"), ("[ipv6:2001:db8::1]", "[2001:db8::1]:25")],
    )
    def test_literal(self, literal: str, to: str, success_of: Callable[..., Any]) -> None:
        """
        An address literal is asked nobody for.
        """
        names = Names()
        assert hosts(success_of(route(names, literal))) == [to]
        assert names.asked == []

    @pytest.mark.parametrize("domain", ["", "[x]", "a" * 300, "*.example.org", "a..b", "☃.example"])
    def test_no_domain(self, domain: str, failure_of: Callable[..., Failure]) -> None:
        """
        What cannot be a domain is not looked up.
        """
        names = Names()
        failure_of(route(names, domain), PermanentFailure)
        assert names.asked == []


class TestConfigured:
    LOCAL = to_hops([Hop("unix:/lmtp")])
    HOST = to_hops([Hop("one:25"), Hop("two:25")])

    @pytest.mark.parametrize(
        ("domain", "name"),
        [
            ("example.org", "unix:/lmtp"),
            ("a.example.org", "one:25,two:25"),
            ("other.example", "other"),
        ],
    )
    def test_patterns(self, domain: str, name: str, success_of: Callable[..., Any]) -> None:
        """
        The most exact pattern decides, and what has none goes to the rest.
        """
        others = Route("other", (Hop("smart:25"),))
        pairs = [("example.org", self.LOCAL), ("*.example.org", self.HOST)]

        assert success_of(asked(ConfiguredRoutes(pairs, others), domain)).name == name

    def test_others(
        self, success_of: Callable[..., Any], failure_of: Callable[..., Failure]
    ) -> None:
        """
        The rest may be looked up, or refused.
        """
        rest = MXRoutes(Names([(1, "a.example")]), "relay.example.net")
        routes = ConfiguredRoutes([], rest)
        assert hosts(success_of(asked(routes, "example.com"))) == ["a.example:25"]
        nothing = ConfiguredRoutes([])
        failure_of(asked(nothing, "example.com"), PermanentFailure)
