"""
Words for where a message goes.
"""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from lmtpsvc.outgoing.destination import destination, is_host

from ..rows import each_row


class TestDestination:
    @each_row(
        ("words", "kind", "host"),
        [
            ("mail.example.org:24", HostnameEndpoint, "mail.example.org"),
            ("127.0.0.1:8024", HostnameEndpoint, "127.0.0.1"),
            ("[2001:db8::1]:24", HostnameEndpoint, "2001:db8::1"),
            ("bücher.example:24", HostnameEndpoint, "bücher.example"),
            # Names that IDNA has not, and the DNS has.
            ("my_server:24", TCP4ClientEndpoint, "my_server"),
            ("r3---mail.example.org:25", TCP4ClientEndpoint, "r3---mail.example.org"),
            ("tcp:my_server:24", TCP4ClientEndpoint, "my_server"),
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

    @each_row(
        "words",
        [
            *("", "mail.example.org", "mail.example.org:", "host:0", "host:99999", ":24", "a b:24"),
            *("tcp:", "tcp:host", "nothing:here", "2001:db8::1:24", "unix:", "ann@example.org:24"),
            "ssl:mail.example.org:24",
            # What Twisted only finds out when it connects.
            *("a..b:24", f"{'x' * 64}.example:24", "☃.example:24", "[::::]:24"),
            *("tcp:a..b:24", "tcp:host:0", "tcp:host:99999", "tls:host:99999", "tcp:h:port=x"),
            *(f"/{'x' * 107}", f"unix:/{'x' * 107}", f"unix:path=/{'ü' * 54}"),
        ],
    )
    def test_invalid(self, words: str) -> None:
        """
        Anything else is told in one line.
        """
        with pytest.raises(ValueError) as caught:
            destination(reactor, words)

        assert "\n" not in str(caught.value)

    def test_longest_path(self) -> None:
        """
        A path may be as long as the system has it.
        """
        path = f"/{'x' * 106}"

        assert isinstance(destination(reactor, path).endpoint, UNIXClientEndpoint)
        assert destination(reactor, f"unix:{path}").host == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("mail.example.org", True), ("mail.example.org.", True), ("a_b.example", True)),
        *(("192.0.2.1", True), ("2001:db8::1", True), ("-a-.b", True), ("x" * 63, True)),
        *(("", False), (".", False), ("a..b", False), ("x" * 64, False), ("a b", False)),
        *(("http://mail.example", False), ("a@b", False), ("bücher.example", False)),
        (".".join(["x" * 63] * 4), False),
    ],
)
def test_is_host(name: str, expected: bool) -> None:
    """
    What may be asked of a resolver.
    """
    assert is_host(name) is expected
