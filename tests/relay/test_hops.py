"""
The words for a server that mail is passed on to.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from lmtpsvc.client import TLS, Dialect, Login
from lmtpsvc.relay.hops import hop, hops
from lmtpsvc.relay.routes import Hop

from ..rows import each_row

SMTP, LMTP = Dialect.SMTP, Dialect.LMTP


@each_row(
    ("words", "expected"),
    [
        ("smtp.example.net", Hop("smtp.example.net:25", SMTP, TLS.MAY)),
        ("smtp.example.net:587", Hop("smtp.example.net:587", SMTP, TLS.MAY)),
        ("smtp:smtp.example.net", Hop("smtp.example.net:25", SMTP, TLS.MAY)),
        ("smtp:192.0.2.1:2525:tls=none", Hop("192.0.2.1:2525", SMTP, TLS.NONE)),
        ("[2001:db8::1]:25", Hop("[2001:db8::1]:25", SMTP, TLS.MAY)),
        ("mx.example.net:25:tls=must", Hop("mx.example.net:25", SMTP, TLS.MUST)),
        ("lmtp:127.0.0.1:24", Hop("127.0.0.1:24", LMTP, TLS.NONE)),
        ("lmtp:unix:/run/lmtp.sock", Hop("unix:/run/lmtp.sock", LMTP, TLS.NONE)),
        ("lmtp:/run/lmtp.sock", Hop("/run/lmtp.sock", LMTP, TLS.NONE)),
        ("lmtp:node:24:tls=encrypt", Hop("node:24", LMTP, TLS.ENCRYPT)),
    ],
)
def test_right(words: str, expected: Hop) -> None:
    """
    SMTP unless they say otherwise, and encrypted if it can be.
    """
    assert expected == hop(MemoryReactorClock(), words)


def test_several() -> None:
    """
    Commas stand between servers, in their order.
    """
    found = hops(MemoryReactorClock(), "lmtp:a:24, lmtp:b:24")

    assert ["a:24", "b:24"] == [each.to for each in found]


def test_login(tmp_path: Path) -> None:
    """
    A password goes over TLS to the server that it is for, unless somebody says otherwise.
    """
    (tmp_path / "password").write_text("secret\n")
    words = f"smtp.example.net:587:login=me:password_file={tmp_path}/password"

    found = hop(MemoryReactorClock(), words)

    assert (Login("me", "secret"), TLS.MUST) == (found.login, found.tls)
    assert TLS.ENCRYPT is hop(MemoryReactorClock(), f"{words}:tls=encrypt").tls


@each_row(
    ("words", "said"),
    [
        ("", "does not start with a name"),
        ("lmtp:", "not a destination; write HOST:PORT"),
        ("lmtp:node", "not a destination; write HOST:PORT"),
        ("smtp:mx:70000", "not a destination"),
        ("smtp:mx:25:tls=perhaps", "tls=perhaps: expected none or may or encrypt or must"),
        ("smtp:mx:25:colour=red", "colour: no such option; expected"),
        ("smtp:mx:25:login=me", "login and password_file go together"),
        ("smtp:mx:25:login=me:password_file=/proc/nonexistent", "password_file: /proc/nonexistent"),
        ("smtp:mx:25:ca=/proc/nonexistent", "/proc/nonexistent: No such file"),
        ("smtp:/run/smtp.sock:tls=must", "whose name"),
        ("smtp:mx:25,", "does not start with a name"),
    ],
)
def test_wrong(words: str, said: str) -> None:
    """
    Each mistake is one line.
    """
    with pytest.raises(ValueError, match=said) as caught:
        hops(MemoryReactorClock(), words)

    assert "\n" not in str(caught.value)
