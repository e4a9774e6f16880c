"""
What is sent is what is stored, and what is stored is what Dovecot serves: octet by octet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from email.parser import BytesHeaderParser
from hashlib import sha256

import pytest

from . import samples
from .dovecot import Dovecot
from .lmtp import Client
from .service import DOMAIN, Service
from .store import Store, Stored, with_crlf

ANN, BOB = f"ann@{DOMAIN}", f"bob@{DOMAIN}"


@pytest.fixture(scope="module")
def sent(service: Service, real_mail: list[samples.Sample]) -> dict[str, bytes]:
    """
    Every sample, by transaction id: sent to Ann and Bob, every other one over the UNIX socket.
    """
    by_id = {}
    with Client(service.tcp) as over_tcp, Client(service.unix) as over_unix:
        for number, sample in enumerate([*real_mail, *samples.made_up(), *samples.hostile()]):
            client = (over_tcp, over_unix)[number % 2]
            outcome = client.send("sender@example.net", [ANN, BOB], sample.text)
            assert [line[:10] for line in outcome.delivered] == ["250 2.0.0 "] * 2, sample
            assert f"<{ANN}>" in outcome.delivered[0]
            assert f"<{BOB}>" in outcome.delivered[1]
            by_id[outcome.transaction_id] = sample.text
    return by_id


@pytest.fixture(params=[ANN, BOB])
def mailbox(
    request: pytest.FixtureRequest, service: Service, sent: dict[str, bytes]
) -> list[Stored]:
    """
    What one of them has got.
    """
    return service.store.mailbox(request.param)


class TestStored:
    def test_everything_once(self, mailbox: list[Stored], sent: dict[str, bytes]) -> None:
        """
        There is one file for each transaction, and the id in the 250 stands in its Received.
        """
        assert sorted(stored.transaction_id for stored in mailbox) == sorted(sent)

    def test_octets(self, mailbox: list[Stored], sent: dict[str, bytes]) -> None:
        """
        Behind the trace headers stands what was sent, CRLF become LF and nothing else changed.
        """
        for stored in mailbox:
            expected = sent[stored.transaction_id].replace(b"\r\n", b"\n")
            text = stored.text

            assert text.endswith(expected)
            trace = BytesHeaderParser().parsebytes(text[: len(text) - len(expected)])
            assert set(trace) == {"Return-Path", "Received"}
            assert trace.get_payload() == ""

    def test_sizes_in_the_name(self, mailbox: list[Stored]) -> None:
        """
        ``S=`` is the size of the file, ``W=`` the size that IMAP shows.
        """
        for stored in mailbox:
            text = stored.text

            assert stored.sizes == (len(text), len(with_crlf(text)))

    def test_one_file_for_both(self, service: Service, sent: dict[str, bytes]) -> None:
        """
        Ann and Bob share each file by a hard link.
        """
        files = [
            {stored.path.stat().st_ino for stored in service.store.mailbox(address)}
            for address in (ANN, BOB)
        ]

        assert files[0] == files[1]


class TestDovecot:
    def test_serves_what_is_stored(
        self, service: Service, sent: dict[str, bytes], dovecot: Callable[[Store], Dovecot]
    ) -> None:
        """
        IMAP lists and fetches every message, with CRLF line endings and else octet by octet;
        RFC822.SIZE is ``W=``; and Dovecot has nothing to complain about.

        One octet is different: IMAP cannot carry a NUL (RFC 3501 §4.3.1), so Dovecot shows 0x80.
        """
        expected = {
            address: Counter(
                (stored.sizes[1], digest(with_crlf(stored.text).replace(b"\0", b"\x80")))
                for stored in service.store.mailbox(address)
            )
            for address in (ANN, BOB)
        }
        server = dovecot(service.store)

        for address in (ANN, BOB):
            served = Counter(
                (message.size, digest(message.text)) for message in server.inbox(address)
            )
            assert served == expected[address]
        assert server.complaints() == []


def digest(text: bytes) -> str:
    """
    What a message is compared by, so that a failure does not print 30 MB.
    """
    return sha256(text).hexdigest()
