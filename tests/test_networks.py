"""
Who is in a network, and who is not.
"""

from __future__ import annotations

import pytest

from lmtpsvc.networks import Networks

from .rows import each_row


@each_row(
    ("words", "inside", "outside"),
    [
        ([], [], ["127.0.0.1", "::1", "local", ""]),
        (["local"], ["local"], ["127.0.0.1", "::1", "localhost", "Local", ""]),
        (["10.0.0.0/8"], ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], ["11.0.0.0", "local"]),
        (
            ["192.0.2.7"],
            ["192.0.2.7", "::ffff:c000:207"],
            ["192.0.2.8", "192.0.2.07", "192.0.2.7 "],
        ),
        (["::ffff:192.0.2.7"], ["192.0.2.7", "::ffff:192.0.2.7"], ["::192.0.2.7"]),
        (["::ffff:10.0.0.0/104"], ["10.9.9.9"], ["11.0.0.0", "::ffff:11.0.0.0"]),
        (["2001:db8::/32"], ["2001:db8::1", "2001:DB8:0::1"], ["2001:db9::1", "32.1.13.184"]),
        (["fe80::/10"], ["fe80::1%eth0"], ["::1"]),
        (["::/0"], ["::1"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        (["0.0.0.0/0", "::/0"], ["1.2.3.4", "::1"], ["local", "example.org", "1"]),
        (["::1", "local"], ["::1", "local"], ["::2"]),
    ],
)
def test_contains(words: list[str], inside: list[str], outside: list[str]) -> None:
    """
    Addresses are compared as such, however they are written; IPv4 on an IPv6 socket is IPv4.
    """
    networks = Networks(words)

    # Twice: the second answer is remembered.
    for _ in range(2):
        assert inside == [host for host in inside if host in networks]
        assert [] == [host for host in outside if host in networks]


@each_row(
    "word", ["", "10", "10.0.0.0/33", "10.0.0.0/255.0.255.0", "10.0.0.1/8", "::1/64", "mx", "*"]
)
def test_mistakes(word: str) -> None:
    """
    What is no network is named, in one line.
    """
    with pytest.raises(ValueError, match=r"no network|a host and a network") as caught:
        Networks([word])

    assert repr(word) in str(caught.value)
