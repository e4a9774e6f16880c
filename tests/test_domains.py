"""
One domain, in whichever form it is written.
"""

from __future__ import annotations

import pytest

from lmtpsvc.domains import ascii_domain, unicode_domain, with_ascii_domain

from .rows import each_row

BOOKS = "xn--bcher-kva.example"


@each_row(
    ("said", "ascii_form"),
    [
        ("", ""),
        ("example.org", "example.org"),
        # What is ASCII is not looked at.
        ("Example.ORG", "Example.ORG"),
        ("[ipv6:::1]", "[ipv6:::1]"),
        (BOOKS, BOOKS),
        ("xn--not\0one", "xn--not\0one"),
        ("bücher.example", BOOKS),
        ("BÜCHER.Example", BOOKS),
        ("bu\u0308cher.example", BOOKS),
        ("mx.bücher.example", f"mx.{BOOKS}"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("faß.example", "xn--fa-hia.example"),
        ("under_score.bücher.example", f"under_score.{BOOKS}"),
        # None of these is a domain of IDNA (RFC 5891 §4.2), and none may come to look like another.
        ("☃.Example", "☃.example"),
        ("\uff45xample.org", "\uff45xample.org"),
        ("a\uff0fb.example", "a\uff0fb.example"),
        ("a\u3002example", "a\u3002example"),
        ("-ü.example", "-ü.example"),
        ("ü" * 64, "ü" * 64),
    ],
)
def test_ascii(said: str, ascii_form: str) -> None:
    """
    Labels that are not ASCII become what DNS has; what IDNA does not know stays.
    """
    assert ascii_form == ascii_domain(said)
    assert ascii_form == ascii_domain(ascii_form)


@each_row(
    ("said", "unicode_form"),
    [
        ("example.org", "example.org"),
        (BOOKS, "bücher.example"),
        (f"mx.{BOOKS}", "mx.bücher.example"),
        ("xn--e1afmkfd.xn--p1ai", "пример.рф"),
        # No A-labels, whatever they look like.
        ("xn--.example", "xn--.example"),
        ("xn--a.example", "xn--a.example"),
        ("xn--bcher-kva\0.example", "xn--bcher-kva\0.example"),
        ("axn--bcher-kva.example", "axn--bcher-kva.example"),
    ],
)
def test_unicode(said: str, unicode_form: str) -> None:
    """
    And back, where that leads to the same domain.
    """
    assert unicode_form == unicode_domain(said)


@pytest.mark.parametrize(
    ("said", "ascii_form"),
    [
        ("ann@example.org", "ann@example.org"),
        ("jörg@example.org", "jörg@example.org"),
        ("jörg@bücher.example", f"jörg@{BOOKS}"),
        ("@bücher.example", f"@{BOOKS}"),
        ("bücher.example", BOOKS),
    ],
)
def test_address(said: str, ascii_form: str) -> None:
    """
    The local part of an address is nobody's but its server's.
    """
    assert ascii_form == with_ascii_domain(said)
