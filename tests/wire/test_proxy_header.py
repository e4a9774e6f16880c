"""
The header of the PROXY protocol, right and wrong, in one piece and octet by octet.
"""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

import pytest
from hypothesis import given
from hypothesis.strategies import binary, sampled_from

from lmtpsvc.wire.proxy_header import MAX_BINARY, BadProxyHeader, ProxyHeader, ProxyHeaderReader

from ..rows import each_row

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, rest: bytes = b"", length: int | None = None) -> bytes:
    return SIGNATURE + pack("!BBH", command, family, len(rest) if length is None else length) + rest


def addresses(source: str, port: int = 56324, to: str | None = None) -> bytes:
    ours = ip_address(to or source)
    return ip_address(source).packed + ours.packed + pack("!HH", port, 24)


def tlv(kind: int, value: bytes) -> bytes:
    return pack("!BH", kind, len(value)) + value


LONG = ":".join(["ffff"] * 8)
TCP4 = v2(0x21, 0x11, addresses("192.0.2.7"))
SSL = tlv(0x20, pack("!BI", 1, 0) + tlv(0x21, b"TLSv1.3"))
NO_SSL = tlv(0x20, pack("!BI", 0, 1))

RIGHT = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 24\r\n", ProxyHeader("192.0.2.7", 56324)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
     ProxyHeader("255.255.255.255", 65535)),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ProxyHeader("0.0.0.0", 0)),
    (b"PROXY TCP6 2001:DB8::7 ::1 56324 24\r\n", ProxyHeader("2001:db8::7", 56324)),
    (f"PROXY TCP6 {LONG} {LONG} 65535 65535\r\n".encode(),
     ProxyHeader(LONG, 65535)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 24\r\n", ProxyHeader("192.0.2.7", 1)),
    (b"PROXY UNKNOWN\r\n", ProxyHeader()),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", ProxyHeader()),
    (TCP4, ProxyHeader("192.0.2.7", 56324)),
    (v2(0x21, 0x21, addresses("2001:db8::7")), ProxyHeader("2001:db8::7", 56324)),
    (v2(0x21, 0x21, addresses("::ffff:192.0.2.7")), ProxyHeader("192.0.2.7", 56324)),
    (v2(0x21, 0x31, b"/run/x".ljust(216, b"\0")), ProxyHeader()),
    (v2(0x21, 0x00), ProxyHeader()),
    (v2(0x21, 0x00, SSL), ProxyHeader(tls=True)),
    # Addresses of a family that nobody has told, which are to be ignored.
    (v2(0x21, 0x00, b"junk"), ProxyHeader()),
    (v2(0x21, 0x00, addresses("192.0.2.7")), ProxyHeader()),
    (v2(0x21, 0x00, tlv(0x20, b"\1")), ProxyHeader()),
    (v2(0x21, 0x00, SSL + b"\0"), ProxyHeader()),
    (v2(0x20, 0x00), ProxyHeader(is_own=True)),
    (v2(0x20, 0x11, b"junk"), ProxyHeader(is_own=True)),
    (v2(0x20, 0x99, addresses("192.0.2.7")), ProxyHeader(is_own=True)),
    (v2(0x21, 0x11, addresses("192.0.2.7") + SSL), ProxyHeader("192.0.2.7", 56324, tls=True)),
    (v2(0x21, 0x11, addresses("192.0.2.7") + NO_SSL), ProxyHeader("192.0.2.7", 56324)),
    (v2(0x21, 0x11, addresses("192.0.2.7") + tlv(0x02, b"mx") + tlv(0x05, b"abc-1") + tlv(0xEE, b"")),
     ProxyHeader("192.0.2.7", 56324, identifier="abc-1")),
    (v2(0x21, 0x11, addresses("192.0.2.7") + tlv(0x05, b"a b")), ProxyHeader("192.0.2.7", 56324)),
    (v2(0x21, 0x11, addresses("192.0.2.7") + tlv(0x05, b"\xff\n")), ProxyHeader("192.0.2.7", 56324)),
    (v2(0x21, 0x11, addresses("192.0.2.7") + tlv(0x05, b"x" * 129)), ProxyHeader("192.0.2.7", 56324)),
    (v2(0x21, 0x11, addresses("192.0.2.7") + tlv(0x04, bytes(MAX_BINARY - 16 - 12 - 3))),
     ProxyHeader("192.0.2.7", 56324)),
]  # fmt: skip

WRONG = [
    b"LHLO x\r\n",
    b"\x16\x03\x01\x02\x00",
    b"\0",
    b"proxy TCP4 192.0.2.7 192.0.2.1 56324 24\r\n",
    b"PROXY  TCP4 192.0.2.7 192.0.2.1 56324 24\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 56324  24\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 24 \r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 24\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 56324\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 24\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 65536\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 056324 24\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 24\r\n",
    b"PROXY TCP4 192.0.2.07 192.0.2.1 56324 24\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.1 56324 24\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2 56324 24\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 56324 24\r\n",
    b"PROXY TCP4 mx.example.org 192.0.2.1 56324 24\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.1 56324 24\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 56324 24\r\n",
    b"PROXY TCP6 ::: ::1 56324 24\r\n",
    b"PROXY UDP4 192.0.2.7 192.0.2.1 56324 24\r\n",
    b"PROXY UNKNOWN",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN\n",
    b"PROXY UNKNOWN a\rb\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY " + b"x" * 200,
    b"PROXY \r\n",
    SIGNATURE[:-1] + b"x",
    v2(0x11, 0x11, addresses("192.0.2.7")),
    v2(0x31, 0x11, addresses("192.0.2.7")),
    v2(0x22, 0x11, addresses("192.0.2.7")),
    v2(0x21, 0x12, addresses("192.0.2.7")),
    v2(0x21, 0x01),
    v2(0x21, 0x41, addresses("192.0.2.7")),
    v2(0x21, 0x11, addresses("192.0.2.7")[:-1]),
    v2(0x21, 0x21, addresses("192.0.2.7")),
    v2(0x21, 0x31, bytes(215)),
    v2(0x21, 0x11, b""),
    v2(0x21, 0x11, addresses("192.0.2.7") + b"\x04"),
    v2(0x21, 0x11, addresses("192.0.2.7") + b"\x04\0"),
    v2(0x21, 0x11, addresses("192.0.2.7") + b"\x04\0\1"),
    v2(0x21, 0x11, addresses("192.0.2.7") + tlv(0x20, b"\1\0\0\0")),
    v2(0x21, 0x11, addresses("192.0.2.7") + tlv(0x20, b"\1\0\0\0\0\x21\0\7TLS")),
    v2(0x21, 0x11, length=MAX_BINARY - 15),
    v2(0x20, 0x00, length=65535),
]  # fmt: skip


def fed(octets: bytes, size: int) -> tuple[ProxyHeader | None, bytes | None]:
    """
    What a reader makes of *octets* in pieces of *size*: the header, and what is behind it.
    """
    reader = ProxyHeaderReader()
    for start in range(0, len(octets), size):
        rest = reader.feed(octets[start : start + size])
        if rest is not None:
            return reader.header, rest + octets[start + size :]
    return reader.header, None


@each_row("size", [1, 5, 100_000])
@each_row(("octets", "header"), RIGHT)
def test_right(octets: bytes, header: ProxyHeader, size: int) -> None:
    """
    Whatever is behind the header is left alone, also if it comes in the same packet.
    """
    for behind in (b"", b"LHLO x\r\n", b"\r\n\r\n\0\r\nQUIT\n", b"PROXY UNKNOWN\r\n"):
        assert (header, behind) == fed(octets + behind, size)


@each_row("size", [1, 5, 100_000])
@each_row("octets", WRONG)
def test_wrong(octets: bytes, size: int) -> None:
    """
    What is wrong is refused, at the latest where a header would be too long.
    """
    with pytest.raises(BadProxyHeader, match="PROXY header"):
        fed(octets.ljust(MAX_BINARY, b"x"), size)


@each_row("octets", [octets for octets, _ in RIGHT])
def test_incomplete(octets: bytes) -> None:
    """
    Nothing is known before the last octet.
    """
    assert (None, None) == fed(octets[:-1], 1)
    assert (None, None) == fed(octets[:-1], 100_000)


@given(sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, TCP4[:16]]), binary(max_size=300))
def test_anything(start: bytes, octets: bytes) -> None:
    """
    No octets do anything but to be read, refused or waited for; the same in pieces.
    """
    outcomes = set()
    for size in (1, 100_000):
        try:
            header, rest = fed(start + octets, size)
        except BadProxyHeader:
            outcomes.add("refused")
        else:
            outcomes.add(f"{header} {rest!r}")
    assert 1 == len(outcomes)
