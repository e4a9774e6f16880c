"""
Values that travel through every layer.
"""

from __future__ import annotations

import pytest
from attrs import evolve, fields
from hypothesis import given
from hypothesis.strategies import characters, text

from lmtpsvc.envelope import NO_PARAMETERS, Address, Client, Mailbox, Recipient, Sender
from lmtpsvc.wire.paths import parse_rcpt

from .rows import each_row


class TestAddress:
    """
    ``local@domain``.
    """

    @each_row(
        ("address", "text"),
        [
            (Address("ann", "example.org"), "ann@example.org"),
            (Address("Ann.Lee+x", "example.org"), "Ann.Lee+x@example.org"),
            (Address("a b", "example.org"), '"a b"@example.org'),
            (Address("", "example.org"), '""@example.org'),
            (Address("a.", "example.org"), '"a."@example.org'),
            (Address("a..b", "example.org"), '"a..b"@example.org'),
            (Address('a"\\', "example.org"), '"a\\"\\\\"@example.org'),
            (Address("jörg", "bücher.example"), "jörg@bücher.example"),
            (Address("ann", "[IPv6:::1]"), "ann@[IPv6:::1]"),
            (Address("Postmaster", ""), "Postmaster"),
        ],
    )
    def test_text(self, address: Address, text: str) -> None:
        """
        The text of an address is quoted where it must be, and nowhere else.
        """
        assert text == str(address)

    @given(text(characters(min_codepoint=32, max_codepoint=126), max_size=30))
    def test_round_trip(self, local: str) -> None:
        """
        What is written is read as the same address.
        """
        address = Address(local, "example.org")

        read, _ = parse_rcpt(f"TO:<{address}>".encode())

        assert address == read


class TestSender:
    """
    What MAIL said.
    """

    def test_null(self) -> None:
        """
        The null reverse-path is an empty text, and has no parameters.
        """
        sender = Sender(None)

        assert ("", None, False) == (str(sender), sender.size, sender.smtputf8)

    def test_parameters(self) -> None:
        """
        Size and SMTPUTF8 are there when the client said so; two such senders are equal.
        """
        parameters = {"SIZE": 12, "SMTPUTF8": True}
        sender = Sender(Address("ann", "example.org"), parameters)

        assert (12, True) == (sender.size, sender.smtputf8)
        assert sender == Sender(Address("ann", "example.org"), dict(parameters))
        assert hash(sender) == hash(Sender(Address("ann", "example.org")))


@pytest.mark.parametrize(
    ("mailbox", "text"),
    [
        (Mailbox("ann", "example.org"), "ann@example.org"),
        (Mailbox("ann", "example.org", "lists"), "ann+lists@example.org"),
        (Mailbox("ann", ""), "ann"),
    ],
)
def test_mailbox_text(mailbox: Mailbox, text: str) -> None:
    """
    A mailbox in the log looks like an address.
    """
    assert text == str(mailbox)


def test_mailboxes_are_told_apart() -> None:
    """
    Mailboxes of the same name with other attributes are not the same, but may share a dict.
    """
    plain = Mailbox("ann", "example.org")
    with_quota = Mailbox("ann", "example.org", attributes={"quota": "1G"})

    assert 2 == len({plain: 1, with_quota: 2, Mailbox("ann", "example.org"): 3})


def test_no_parameters_stay_none() -> None:
    """
    What everybody shares cannot be written to.
    """
    recipient = Recipient(Address("ann", "example.org"))

    with pytest.raises(TypeError):
        recipient.parameters["NOTIFY"] = "NEVER"  # type: ignore[index]  # that is what is tested
    assert {} == dict(NO_PARAMETERS)


def test_a_client_with_another_name() -> None:
    """
    All else stays as it was, whatever else there will be.
    """
    known: dict[str, object] = {each.name: object() for each in fields(Client)}
    client = Client(**known)  # type: ignore[arg-type]  # told apart is all that they are to be

    assert evolve(client, name="mx") == client.named("mx")
