"""
Words for where a message goes.
"""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from lmtpsvc.outgoing.destination import destination


class TestDestination:
    @pytest.mark.parametrize(
        ("words", "kind", "host"),
        [
            ("mail.example.org:24", HostnameEndpoint, "mail.example.org"),
            ("127.0.0.1:8024", HostnameEndpoint, "127.0.0.1"),
            ("[2001:db8::1]:24", HostnameEndpoint, "2001:db8::1"),
            ("tcp:mail.example.org:24", IStreamClientEndpoint, "mail.example.org"),
            ("tcp:host=mail.example.org:port=24", IStreamClientEndpoint, "mail.example.org"),
            ("/run/lmtp.sock", UNIXClientEndpoint, ""),
            ("unix:/run/lmtp.sock", UNIXClientEndpoint, ""),
            ("tls:mail.example.org:24", IStreamClientEndpoint, "mail.example.org"),
            ("ssl:192.0.2.7:24:hostname=mail.example.org", IStreamClientEndpoint, "192.0.2.7"),
        ],
    )
    def test_valid(self, words: str, kind: type, host: str) -> None:
        """
        An endpoint, and the host whose name a certificate should have.
        """
        found = destination(reactor, words)

        if kind is IStreamClientEndpoint:
            assert IStreamClientEndpoint.providedBy(found.endpoint)
        else:
            assert isinstance(found.endpoint, kind)
        assert found.host == host

    @pytest.mark.parametrize(
        "words",
        [
            *("", "mail.example.org", "mail.example.org:", "host:0", "host:99999", ":24", "a b:24"),
            *("tcp:", "tcp:host", "nothing:here", "2001:db8::1:24", "unix:", "ann@example.org:24"),
            "ssl:mail.example.org:24",
        ],
    )
    def test_invalid(self, words: str) -> None:
        """
        Anything else is told in one line.
        """
        with pytest.raises(ValueError) as caught:
            destination(reactor, words)

        assert "\n" not in str(caught.value)
