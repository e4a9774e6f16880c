"""
What MAIL and RCPT say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest
from hypothesis import given
from hypothesis.strategies import builds, characters, just, lists, text

from lmtpsvc import replies
from lmtpsvc.envelope import Address, Recipient, Sender
from lmtpsvc.replies import Reply
from lmtpsvc.wire.commands import CommandError
from lmtpsvc.wire.paths import (
    _plain_again,
    parse_mail,
    parse_rcpt,
    plain_recipients,
    plain_sender,
    sized_mail,
)

from ..rows import each_row

# What stands between the brackets, and whom it means.
VALID = {
    "ann@example.org": Address("ann", "example.org"),
    "Ann.Smith@Example.ORG": Address("Ann.Smith", "example.org"),
    "a@b": Address("a", "b"),
    "1@2.3": Address("1", "2.3"),
    "ann+lists=x@example.org": Address("ann+lists=x", "example.org"),
    "!#$%&'*+-/=?^_`{|}~@example.org": Address("!#$%&'*+-/=?^_`{|}~", "example.org"),
    # Hyphens and underscores, in the middle and, for underscores, at either end.
    "a@a-b--c.d": Address("a", "a-b--c.d"),
    "a@_dmarc.my_host_.example": Address("a", "_dmarc.my_host_.example"),
    # A quoted string means what is inside.
    '"ann"@example.org': Address("ann", "example.org"),
    '"a b"@example.org': Address("a b", "example.org"),
    '""@example.org': Address("", "example.org"),
    r'"a\"b\\c\d"@example.org': Address(r'a"b\cd', "example.org"),
    '"<a@b>, \\"c>\\""@example.org': Address('<a@b>, "c>"', "example.org"),
    '"a..b"@example.org': Address("a..b", "example.org"),
    '"@"@example.org': Address("@", "example.org"),
    # Literals.
    "a@[192.0.2.1]": Address("a", "[192.0.2.1]"),
    "a@[IPv6:2001:DB8::1]": Address("a", "[ipv6:2001:db8::1]"),
    "a@[IPv6:::]": Address("a", "[ipv6:::]"),
    "a@[ipv6:::ffff:192.0.2.1]": Address("a", "[ipv6:::ffff:192.0.2.1]"),
    # A source route is dropped.
    "@relay.example:ann@example.org": Address("ann", "example.org"),
    "@a.example,@b.example:ann@example.org": Address("ann", "example.org"),
    '@a:"a:b"@example.org': Address("a:b", "example.org"),
    # RFC 6531.
    "jürgen@example.org": Address("jürgen", "example.org"),
    '"jürgen w"@example.org': Address("jürgen w", "example.org"),
    "a@BÜCHER.Example": Address("a", "bücher.example"),
    "a@bu\u0308cher.example": Address("a", "bücher.example"),
    "用户@例子.广告": Address("用户", "例子.广告"),
    "अजय@डाटा.भारत": Address("अजय", "डाटा.भारत"),
    "a@نامه\u200cای.com": Address("a", "نامه\u200cای.com"),
    "😀@example.org": Address("😀", "example.org"),
    # Length: what real systems send, and what a file name can hold.
    "a" * 256 + "@" + "b" * 255: Address("a" * 256, "b" * 255),
    "ü" * 128 + "@example.org": Address("ü" * 128, "example.org"),
}

# What stands between the brackets and is nobody's address.
INVALID = [
    "ann",
    "ann@",
    "@example.org",
    "@",
    " ",
    "ann@example.org ",
    " ann@example.org",
    "ann @example.org",
    "a b@example.org",
    "ann@example..org",
    "ann@.example.org",
    "ann@example.org.",
    "ann@-example.org",
    "ann@example-.org",
    "ann@exa/mple.org",
    "ann@exa mple.org",
    ".ann@example.org",
    "ann.@example.org",
    "a..b@example.org",
    "a(b)@example.org",
    "a@b@example.org",
    "a,b@example.org",
    "a\\b@example.org",
    "a\x7f@example.org",
    "a\t@example.org",
    "a\0@example.org",
    '"a"b@example.org',
    'a"b"@example.org',
    '"a""b"@example.org',
    '"a\tb"@example.org',
    '"a\\\tb"@example.org',
    '"a\x7f"@example.org',
    '"a\r\nb"@example.org',
    '"a\\\0b"@example.org',
    '"a\\ü"@example.org',
    '"a@example.org"',
    # Literals that are no address.
    "a@[]",
    "a@[192.0.2.256]",
    "a@[192.0.2]",
    "a@[192.0.2.1.1]",
    "a@[192.0.2.01]",
    "a@[192.0.2.1",
    "a@192.0.2.1]",
    "a@[192.0.2.1].example",
    "a@[IPv6:]",
    "a@[IPv6:1::2::3]",
    "a@[IPv6:12345::]",
    "a@[IPv6:fe80::1%eth0]",
    "a@[IPv6:192.0.2.1]",
    "a@[::1]",
    "a@[2001:db8::1]",
    "a@[x-400:c=xx;a=yy]",
    "a@[tag:x]",
    "a@[tag-:x]",
    "a@[tag:]",
    "a@[tag:x y]",
    "a@[tag:x[y]",
    "a@[tag:ü]",
    # Routes that are none.
    "@a.example ann@example.org",
    "@a.example,ann@example.org",
    "@a.example,:ann@example.org",
    "@a..b:ann@example.org",
    "a.example:ann@example.org",
    "@a.example:",
    # White space, controls and direction marks that are not ASCII.
    "a\u0085@example.org",
    "a\u00a0b@example.org",
    "a\u2028b@example.org",
    "a\u3000b@example.org",
    "a\u202eb@example.org",
    "a\ufeff@example.org",
    "a\ue000@example.org",
    "a\uffff@example.org",
    '"a\u00a0b"@example.org',
    "a@exa\u00admple.org",
    # They turn into ";" and "`" in NFC.
    "a@b\u037ec.example",
    "a@b\u1fefc.example",
    # Length.
    "a" * 257 + "@example.org",
    "ü" * 129 + "@example.org",
    "a@" + "b" * 256,
    "a@" + "ü" * 128,
]

# Neither FROM: or TO: nor brackets, or one of them out of place; K stands for the keyword.
SHAPES = [
    b"",
    b"K",
    b"K:",
    b"K:ann@example.org",
    b"K: ann@example.org",
    b"K<ann@example.org>",
    b"K :<ann@example.org>",
    b"K:  <ann@example.org>",
    b"K:\t<ann@example.org>",
    b"K:<ann@example.org",
    b"K:ann@example.org>",
    b"K:<<ann@example.org>>",
    b"K:<ann@<example.org>",
    b'K:<"ann@example.org>',
    b'K:<"ann\\"@example.org>',
    b"K:Ann <ann@example.org>",
    b'K:"Ann" <ann@example.org>',
    b"K:<ann@example.org>SIZE=1",
    b"K:<ann@example.org>\tSIZE=1",
    b"K:<ann@example.org>>",
    b"X:<ann@example.org>",
    b"\xffK:<ann@example.org>",
]

PARAMETERS: dict[bytes, dict[str, str | None]] = {
    b"": {},
    b" ": {},
    b" SIZE=1": {"SIZE": "1"},
    b" size=1 Body=8BitMIME": {"SIZE": "1", "BODY": "8BitMIME"},
    b" SMTPUTF8": {"SMTPUTF8": None},
    b"  A   B=b  ": {"A": None, "B": "b"},
    b" X-9=1 9": {"X-9": "1", "9": None},
    b" AUTH=<>": {"AUTH": "<>"},
    b' X="quoted"': {"X": '"quoted"'},
    b" ORCPT=rfc822;ann+2Bx@example.org": {"ORCPT": "rfc822;ann+2Bx@example.org"},
    " ORCPT=utf-8;jürgen@example.org".encode(): {"ORCPT": "utf-8;jürgen@example.org"},
}

BAD_PARAMETERS = {
    b" =1": replies.SYNTAX,
    b" =": replies.SYNTAX,
    b" -X=1": replies.SYNTAX,
    b" X_Y=1": replies.SYNTAX,
    b" SIZE\t=1": replies.SYNTAX,
    b" >": replies.SYNTAX,
    " GRÖSSE=1".encode(): replies.SYNTAX,
    b" SIZE=": replies.BAD_PARAMETER,
    b" SIZE==1": replies.BAD_PARAMETER,
    b" X=a=b": replies.BAD_PARAMETER,
    b" X=a\tb": replies.BAD_PARAMETER,
    b" X=a\0": replies.BAD_PARAMETER,
    b" X=a\x7f": replies.BAD_PARAMETER,
    b" X=\xff": replies.BAD_PARAMETER,
    " X=a\u202eb".encode(): replies.BAD_PARAMETER,
    b" SIZE=1 SIZE=1": replies.REPEATED_PARAMETER,
    b" SIZE=1 size=2": replies.REPEATED_PARAMETER,
    b" SMTPUTF8 SMTPUTF8": replies.REPEATED_PARAMETER,
}

# Long lines that would keep a careless regular expression busy for years.
NASTY = [
    b"a" * 4000,
    b"a." * 2000,
    b"a@" * 2000,
    b"@a" * 2000,
    b"@a," * 1300,
    b"@a," * 1300 + b":a@b",
    b"a@" + b"a-" * 2000,
    b"a@" + b"-" * 4000,
    b"a@a" + b"-" * 4000 + b".",
    b"a@" + b"a." * 2000,
    b"a@[" + b"a" * 4000,
    b"a@[" + b"a-" * 2000 + b"]",
    b"a@[IPv6:" + b":" * 4000 + b"]",
    b"a@[" + b"1." * 2000 + b"]",
    b'"' * 4000,
    b'"' * 4001,
    b'"' + b"a" * 4000,
    b'"' + b"\\" * 4000,
    b'"' + b"\\" * 4001,
    b'"' + b'\\"' * 2000,
    b'"a"' * 1300,
    b"<" * 4000,
    "ü".encode() * 2000 + b"!",
]


def refused_mail(argument: bytes) -> Reply:
    with pytest.raises(CommandError) as caught:
        parse_mail(argument)
    return caught.value.reply


def refused_rcpt(argument: bytes) -> Reply:
    with pytest.raises(CommandError) as caught:
        parse_rcpt(argument)
    return caught.value.reply


class TestValid:
    """
    Addresses.
    """

    @each_row(("path", "address"), VALID.items())
    def test_sender(self, path: str, address: Address) -> None:
        """
        MAIL takes every address there is.
        """
        assert (address, {}) == parse_mail(f"FROM:<{path}>".encode())

    @each_row(("path", "address"), VALID.items())
    def test_recipient(self, path: str, address: Address) -> None:
        """
        RCPT takes the same ones.
        """
        assert (address, {}) == parse_rcpt(f"TO:<{path}>".encode())

    @each_row(("path", "address"), VALID.items())
    def test_round_trip(self, path: str, address: Address) -> None:
        """
        What we write in headers and send on is the address that we were given.
        """
        assert (address, {}) == parse_rcpt(f"TO:<{address}>".encode())


class TestInvalid:
    """
    What looks like an address, at best.
    """

    @each_row("path", INVALID)
    def test_sender(self, path: str) -> None:
        """
        MAIL refuses it as a sender, for good.
        """
        assert replies.BAD_SENDER == refused_mail(f"FROM:<{path}>".encode())

    @each_row("path", INVALID)
    def test_recipient(self, path: str) -> None:
        """
        RCPT refuses it as a recipient, for good.
        """
        assert replies.BAD_RECIPIENT == refused_rcpt(f"TO:<{path}>".encode())


class TestShape:
    """
    Commands of which the address cannot even be found.
    """

    @each_row("said", SHAPES)
    def test_sender(self, said: bytes) -> None:
        """
        The client is told what MAIL looks like.
        """
        assert replies.BAD_MAIL == refused_mail(said.replace(b"K", b"FROM"))

    @each_row("said", SHAPES)
    def test_recipient(self, said: bytes) -> None:
        """
        The client is told what RCPT looks like.
        """
        assert replies.BAD_RCPT == refused_rcpt(said.replace(b"K", b"TO"))


class TestParseMail:
    """
    What is special about senders.
    """

    @pytest.mark.parametrize("argument", [b"FROM:<>", b"From:<>", b"from: <>"])
    def test_null_path(self, argument: bytes) -> None:
        """
        A bounce has no sender.
        """
        assert (None, {}) == parse_mail(argument)

    def test_null_path_with_parameters(self) -> None:
        """
        It has a size all the same.
        """
        assert (None, {"SIZE": "1"}) == parse_mail(b"FROM:<> SIZE=1")

    def test_case_and_space(self) -> None:
        """
        The keyword has no case, and a space behind its colon is overlooked.
        """
        address = Address("Ann", "example.org")

        assert (address, {}) == parse_mail(b"fRoM: <Ann@example.org>")

    def test_postmaster(self) -> None:
        """
        Only a recipient may be a bare postmaster.
        """
        assert replies.BAD_SENDER == refused_mail(b"FROM:<Postmaster>")

    def test_not_utf8(self) -> None:
        """
        Octets that are no UTF-8 are nobody's name.
        """
        assert replies.BAD_SENDER == refused_mail(b"FROM:<j\xfcrgen@example.org>")
        assert replies.BAD_SENDER == refused_mail(b"FROM:<a\xed\xa0\x80@example.org>")


class TestParseRcpt:
    """
    What is special about recipients.
    """

    @pytest.mark.parametrize("path", ["Postmaster", "postmaster", "POSTMASTER"])
    def test_postmaster(self, path: str) -> None:
        """
        Everybody can write to the postmaster, without knowing a domain.
        """
        address, parameters = parse_rcpt(f"TO:<{path}>".encode())

        assert (Address("postmaster", ""), {}) == (address, parameters)
        assert (address, {}) == parse_rcpt(f"TO:<{address}>".encode())

    def test_null_path(self) -> None:
        """
        Nobody is not somebody.
        """
        assert replies.BAD_RECIPIENT == refused_rcpt(b"TO:<>")

    def test_not_utf8(self) -> None:
        """
        Octets that are no UTF-8 are nobody's name.
        """
        assert replies.BAD_RECIPIENT == refused_rcpt(b"TO:<j\xfcrgen@example.org>")


class TestParameters:
    """
    What follows the path.
    """

    @each_row(("said", "parameters"), PARAMETERS.items())
    def test_valid(self, said: bytes, parameters: Mapping[str, str | None]) -> None:
        """
        Keywords have no case, values do, and spaces do not count.
        """
        assert (None, parameters) == parse_mail(b"FROM:<>" + said)
        assert parameters == parse_rcpt(b"TO:<a@b>" + said)[1]

    @each_row(("said", "reply"), BAD_PARAMETERS.items())
    def test_invalid(self, said: bytes, reply: Reply) -> None:
        """
        A parameter that cannot be read is not passed over.
        """
        assert reply == refused_mail(b"FROM:<>" + said)
        assert reply == refused_rcpt(b"TO:<a@b>" + said)

    def test_belong_to_one_command(self) -> None:
        """
        The same sender comes with another SIZE each time.
        """
        assert "1" == parse_mail(b"FROM:<ann@example.org> SIZE=1")[1]["SIZE"]
        assert "2" == parse_mail(b"FROM:<ann@example.org> SIZE=2")[1]["SIZE"]
        assert {} == parse_mail(b"FROM:<ann@example.org>")[1]

    def test_cannot_be_changed(self) -> None:
        """
        Nobody who is handed parameters can change what others see.
        """
        _, parameters = parse_mail(b"FROM:<> SIZE=1")

        with pytest.raises(TypeError):
            cast("dict[str, str | None]", parameters)["SIZE"] = "2"


class TestNasty:
    """
    Long lines made to keep us busy.
    """

    @each_row("path", NASTY)
    def test_bracketed(self, path: bytes) -> None:
        """
        They are refused, like any other address that is none.
        """
        expected = {replies.BAD_RECIPIENT, replies.BAD_RCPT}

        assert refused_rcpt(b"TO:<" + path + b">") in expected

    @each_row("path", NASTY)
    def test_open(self, path: bytes) -> None:
        """
        And if the bracket is never closed, as commands that are none.
        """
        assert replies.BAD_RCPT == refused_rcpt(b"TO:<" + path)


# Text of any kind that a quoted string can hold.
locals_ = text(
    characters(min_codepoint=32, exclude_categories=["C", "Z"], exclude_characters="\x7f")
    | just(" "),
    max_size=60,
)
labels = text(
    characters(categories=["L", "M", "N"], include_characters="-_"), min_size=1, max_size=9
)
domains = lists(labels, min_size=1, max_size=5).map(".".join)


class TestRoundTrip:
    """
    Every address can be written down and read again.
    """

    @given(address=builds(Address, locals_, just("example.org")))
    def test_local_parts(self, address: Address) -> None:
        """
        No local part is so odd that it would turn into another one.
        """
        assert (address, {}) == parse_rcpt(f"TO:<{address}>".encode())

    @given(domain=domains)
    def test_domains(self, domain: str) -> None:
        """
        A domain that was read once is read as the same again.
        """
        try:
            address, _ = parse_rcpt(f"TO:<a@{domain}>".encode())
        except CommandError:
            # A hyphen at an end, or a character that is not what it seems once it is in NFC.
            assert "-" in domain or not domain.isascii()
        else:
            assert (address, {}) == parse_rcpt(f"TO:<{address}>".encode())


RCPT = b"RCPT TO:<ann@example.org>"
ANN = Recipient(Address("ann", "example.org"))

#: Lines that are not usual, whether or not they are well formed.
UNUSUAL = [
    b"",
    b" ",
    b"DATA",
    b"VRFY <ann@example.org>",
    b"<ann@example.org> NOTIFY=NEVER",
    b"<ann@example.org> X",
    "<jörg@example.org>".encode(),
    b"<\xff@example.org>",
    b"<ann@exam\0ple.org>",
    b"<ann@exam\nple.org>",
    b"<ann@exam\rple.org>",
    b"<ann@@example.org>",
    b"<ann@example.org",
    b"<a@" + b"b." * 60 + b"example.org>",
]


class TestPlain:
    """
    Lines as most clients say them.
    """

    def test_usual(self) -> None:
        """
        They mean what they mean anywhere else.
        """
        both = [RCPT, b"rcpt to: <Bob.X@Example.ORG> "]

        assert (ANN,) == plain_recipients([RCPT])
        assert (ANN, Recipient(Address("Bob.X", "example.org"))) == plain_recipients(both)
        assert Sender(Address("ann", "x.example")) == plain_sender(b"MAIL FROM:<ann@x.example>")
        assert Sender(None) == plain_sender(b"MAIL FROM:<>")

    @each_row("said", UNUSUAL)
    def test_unusual(self, said: bytes) -> None:
        """
        Anything else is left to be read in full, alone and among others.
        """
        for line in (said, b"RCPT TO:" + said, b"MAIL FROM:" + said):
            assert None is plain_recipients([line])
            assert None is plain_recipients([RCPT, line, RCPT])
        for line in (said, RCPT, b"MAIL FROM:" + said):
            assert None is plain_sender(line)

    @pytest.mark.parametrize(
        "said",
        [
            b"<ann@x.example> SIZE=0",
            b"<ann@x.example> SIZE=" + b"9" * 20,
            b"<ann@x.example> BODY=7BIT",
            b"<ann@x.example> BODY=8BITMIME",
            b"<ann@x.example> SIZE=1234 BODY=8BITMIME",
            b"<> SIZE=1234 BODY=7BIT",
        ],
    )
    def test_sizes(self, said: bytes) -> None:
        """
        So do the parameters that nearly every MTA sends with MAIL.
        """
        assert parse_mail(b"FROM:" + said) == sized_mail(b"MAIL FROM:" + said)

    @each_row(
        "behind",
        [
            *(b"", b" ", b"SIZE=1", b"  SIZE=1", b" SIZE=1 ", b" SIZE=", b" SIZE", b" SIZE=-1"),
            *(b" SIZE=" + b"9" * 21, b" SIZE=1 SIZE=1", b" SIZE=1,2", b" size=1", b" SIZE=\xb2"),
            *(
                b" BODY=8bitmime",
                b" BODY=BINARYMIME",
                b" BODY=7BIT SIZE=1",
                b" BODY=7BIT BODY=7BIT",
            ),
            *(b" SIZE=1 SMTPUTF8", b" SIZE=1\n", b" SIZE=1\0", b" SIZE=1\r"),
        ],
    )
    def test_other_parameters(self, behind: bytes) -> None:
        """
        Anything else is left to be read in full.
        """
        assert None is sized_mail(b"MAIL FROM:<ann@x.example>" + behind)

    @each_row("said", [*UNUSUAL, b"<a> SIZE=1>", b'<"a> SIZE=1"@b>', RCPT])
    def test_unusual_with_sizes(self, said: bytes) -> None:
        """
        As is what stands behind an address that is not usual.
        """
        for line in (said, b"MAIL FROM:" + said):
            assert None is sized_mail(line + b" SIZE=1")

    def test_nobody(self) -> None:
        """
        No line, no recipient: that is for the table of states to say.
        """
        assert None is plain_recipients([b""])

    def test_long_lines_are_not_kept(self) -> None:
        """
        Nobody fills the memory with lines that are remembered.
        """
        long = b"RCPT TO:<" + b"a" * 60 + b"@" + b"b" * 60 + b".example>"
        before = _plain_again.cache_info().currsize

        assert None is plain_recipients([long])
        assert None is plain_recipients([long, long])

        assert before == _plain_again.cache_info().currsize
