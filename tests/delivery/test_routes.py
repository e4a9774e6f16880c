"""
Which backend and which directory a mailbox belongs to, and what that does to a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lmtpsvc.delivery.patterns import Patterns
from lmtpsvc.delivery.routes import (
    BACKEND,
    Destination,
    RoutedBackend,
    RoutedDirectory,
    merged,
)
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import PermanentFailure, TemporaryFailure, refusal
from lmtpsvc.interfaces import Capabilities, IBackend, IDirectory, IMessage
from lmtpsvc.replies import BAD_MAILBOX, CANNOT_LOOK_UP, NO_SUCH_USER
from lmtpsvc.testing import MemoryMessage

from ..rows import each_row


def mailbox(address: str, detail: str = "", **attributes: str) -> Mailbox:
    user, _, domain = address.partition("@")
    return Mailbox(user, domain, detail, attributes=attributes)


class TestPatterns:
    PATTERNS = Patterns(
        [
            ("*.example.org", "below"),
            ("*.b.example.org", "further below"),
            ("Example.NET", "domain"),
            ("ann@example.net", "Ann"),
            ("ann+lists@example.net", "her lists"),
            ("bücher.example", "books"),
            ("[192.0.2.1]", "literal"),
        ]
    )

    @each_row(
        ("found", "address", "detail"),
        [
            ("Ann", "ann@example.net", ""),
            ("Ann", "ANN@EXAMPLE.NET", ""),
            ("Ann", "ann@example.net", "x"),
            ("her lists", "ann@example.net", "lists"),
            ("domain", "bob@example.net", ""),
            (None, "bob@a.example.net", ""),
            ("below", "x@a.example.org", ""),
            ("below", "x@c.a.example.org", ""),
            ("further below", "x@a.b.example.org", ""),
            ("below", "x@b.example.org", ""),
            (None, "x@example.org", ""),
            (None, "x@badexample.org", ""),
            ("books", "x@bu\u0308cher.example", ""),
            ("literal", "x@[192.0.2.1]", ""),
            (None, "postmaster@", ""),
        ],
    )
    def test_the_most_exact_counts(self, found: str | None, address: str, detail: str) -> None:
        """
        An address comes before its domain, and that before the domains above it.
        """
        asked = mailbox(address, detail)

        assert found == (self.PATTERNS.of_address(asked) or self.PATTERNS.of_domain(asked))

    def test_without_delimiter(self) -> None:
        """
        Where nothing splits addresses, a detail names no address of its own.
        """
        patterns = Patterns([("ann+x@example.org", "x")], delimiter="")

        assert patterns.of_address(mailbox("ann@example.org", "x")) is None
        assert "x" == patterns.of_address(mailbox("ann+x@example.org"))

    @each_row(
        ("pattern", "says"),
        [
            ("", "ann@example.org, example.org or *.example.org"),
            ("*", "no pattern"),
            ("*.", "no pattern"),
            ("a b", "no pattern"),
            ("example..org", "no pattern"),
            ("a.*.org", "no pattern"),
            ("ann@*.example.org", "no pattern"),
            ('"a b"@example.org', "no pattern"),
            ("@example.org", "write 'example.org' and not '@example.org'"),
            ("*@example.org", "write 'example.org' and not '*@example.org'"),
        ],
    )
    def test_mistakes(self, pattern: str, says: str) -> None:
        """
        What is no pattern is answered with what would be one.
        """
        with pytest.raises(ValueError) as caught:
            Patterns([(pattern, 1)])

        assert says in str(caught.value)

    def test_twice(self) -> None:
        """
        One address cannot go two ways.
        """
        with pytest.raises(ValueError, match=r"'EXAMPLE\.org' stands in two routes"):
            Patterns([("example.org", "one"), ("EXAMPLE.org", "two")])


@implementer(IBackend)
class Store:
    """
    Answers each mailbox with what *answers* has for its user, else with success.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.capabilities = Capabilities()
        self.calls: list[tuple[IMessage, list[str]]] = []

    def verify(self, mailbox: Mailbox) -> Any:
        if mailbox.user == "refused":
            raise refusal(BAD_MAILBOX)
        return succeed(None)

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Any]:
        self.calls.append((message, [str(each) for each in mailboxes]))
        return [self.answers.get(each.user) or succeed(None) for each in mailboxes]


class Raising(Store):
    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Any]:
        raise RuntimeError("a defect")


class TooFew(Store):
    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Any]:
        return super().deliver(message, mailboxes)[:-1]


class House:
    """
    Three backends: ``example.org`` is in *a*, ``example.net`` in *b*, all else in *default*.
    """

    def __init__(self, a: Store, b: Store) -> None:
        self.default, self.a, self.b = Store(), a, b
        named = {"a": Destination("a", a), "b": Destination("b", b)}
        self.backend = RoutedBackend(
            Destination("default", self.default),
            Patterns(
                [
                    ("example.org", named["a"]),
                    ("example.net", named["b"]),
                    ("ann@example.net", named["a"]),
                ]
            ),
            named,
        )


@pytest.fixture
def house() -> House:
    return House(Store(), Store())


class TestRoutedBackend:
    def test_interface(self, house: House) -> None:
        """
        It is a backend like others.
        """
        assert verifyObject(IBackend, house.backend)

    @pytest.mark.parametrize(
        ("name", "asked"),
        [
            ("a", mailbox("x@example.org")),
            ("a", mailbox("ann@example.net")),
            ("b", mailbox("bob@example.net")),
            ("default", mailbox("x@example.com")),
            ("b", mailbox("x@example.com", backend="b")),
            ("b", mailbox("x@example.org", backend="b")),
            ("a", mailbox("ann@example.net", backend="b")),
            ("default", mailbox("x@example.com", backend="")),
        ],
    )
    def test_destination(self, name: str, asked: Mailbox, house: House) -> None:
        """
        A route for the address counts most, then the directory, then a route for the domain.
        """
        assert name == house.backend.destination(asked).name

    def test_unknown_name(
        self, house: House, failure_of: Callable[..., Failure], logged: Any
    ) -> None:
        """
        A directory that names a backend which there is not: come back later, and the log says it.
        """
        asked = mailbox("x@example.org", **{BACKEND: "c"})

        with pytest.raises(TemporaryFailure):
            house.backend.verify(asked)
        lost, fine = house.backend.deliver(MemoryMessage(b""), [asked, mailbox("y@example.org")])

        refused = failure_of(lost, TemporaryFailure).value
        assert isinstance(refused, TemporaryFailure)
        assert CANNOT_LOOK_UP == refused.reply
        assert fine.called
        (first, _) = logged.of("lmtpsvc.delivery.routes")
        assert "c" == first["name"]

    def test_verify(self, house: House) -> None:
        """
        The backend that will get the mail is asked.
        """
        with pytest.raises(PermanentFailure):
            house.backend.verify(mailbox("refused@example.org"))

    def test_order(self, house: House, success_of: Callable[..., Any]) -> None:
        """
        Each backend hears of its own mailboxes, in one call; results stand where they belong.
        """
        late: Deferred[None] = Deferred()
        house.b.answers["late"] = late
        asked = [
            mailbox(address)
            for address in ("1@example.org", "late@example.net", "2@example.org", "3@example.com")
        ]

        results = house.backend.deliver(MemoryMessage(b"x"), asked)

        assert [True, False, True, True] == [result.called for result in results]
        assert ["1@example.org", "2@example.org"] == house.a.calls[0][1]
        assert ["late@example.net"] == house.b.calls[0][1]
        assert ["3@example.com"] == house.default.calls[0][1]
        late.callback(None)
        assert success_of(results[1]) is None

    def test_one_backend_by_two_names(self) -> None:
        """
        Two names for one backend are one call, so that it may share what it stores.
        """
        store = Store()
        backend = RoutedBackend(
            Destination("default", store), Patterns([("example.org", Destination("a", store))])
        )

        backend.deliver(MemoryMessage(b""), [mailbox("x@example.org"), mailbox("x@example.net")])

        assert 1 == len(store.calls)

    @pytest.mark.parametrize("broken", [Raising, TooFew])
    def test_broken(
        self,
        broken: type[Store],
        failure_of: Callable[..., Failure],
        success_of: Callable[..., Any],
    ) -> None:
        """
        What one backend does wrong is felt by its own recipients only.
        """
        house = House(broken(), Store(x=fail(refusal(BAD_MAILBOX))))
        asked = [mailbox(each) for each in ("1@example.org", "x@example.net", "2@example.net")]

        lost, refused, fine = house.backend.deliver(MemoryMessage(b""), asked)

        failure_of(lost, RuntimeError)
        failure_of(refused, PermanentFailure)
        assert success_of(fine) is None

    def test_cancelled(self, house: House, failure_of: Callable[..., Failure]) -> None:
        """
        To cancel a result reaches the backend that it is of.
        """
        house.b.answers["late"] = Deferred()
        (result,) = house.backend.deliver(MemoryMessage(b""), [mailbox("late@example.net")])

        result.cancel()

        failure_of(result)


LF, CRLF = Capabilities("\n", "/spool"), Capabilities()
LINKED = Capabilities("\n", "/spool", links_spooled=True)


class TestCapabilities:
    @each_row(
        ("expected", "several"),
        [
            (LF, [LF]),
            (LF, [LF, LF]),
            (Capabilities("\r\n", "/spool"), [LF, CRLF]),
            (Capabilities("\r\n", "/spool"), [CRLF, LF]),
            (Capabilities("\n", "/spool"), [LF, Capabilities("\n", "/other")]),
            (LINKED, [LINKED, LF]),
            (LF, [LF, LINKED]),
            # The default backend gets no file then.
            (Capabilities("\r\n", "/spool"), [LINKED, CRLF]),
            (Capabilities(binary=True), [Capabilities(binary=True)] * 2),
            (CRLF, [Capabilities(binary=True), CRLF]),
            (
                Capabilities("\r\n", None),
                [CRLF, Capabilities("\n", "/one"), Capabilities("\n", "/other")],
            ),
        ],
    )
    def test_merged(self, expected: Capabilities, several: list[Capabilities]) -> None:
        """
        LF if all store that; the spool is where the default backend wants it.
        """
        assert expected == merged(several)

    def test_file_of_the_wrong_form(self, tmp_path: Path) -> None:
        """
        A spooled file has one form: a backend that would link it as another one must read it.
        """
        house = House(Store(), Store())
        house.a.capabilities = LF
        house = House(house.a, house.b)
        message = MemoryMessage(b"Subject: x\r\n\r\ny\r\n").spooled(str(tmp_path))

        house.backend.deliver(message, [mailbox("x@example.org"), mailbox("x@example.net")])

        ((theirs, _),) = house.a.calls
        ((same, _),) = house.b.calls
        assert message is same
        assert theirs.path is None
        assert verifyObject(IMessage, theirs)
        assert (message.id, message.digest, message.envelope, message.deadline) == (
            theirs.id,
            theirs.digest,
            theirs.envelope,
            theirs.deadline,
        )
        assert message.sizes("\n") == theirs.sizes("\n")
        assert "x" == theirs.headers()["Subject"]
        with theirs.open("\n") as file:
            assert b"Subject: x\n\ny\n" == file.read()

    def test_no_routes(self, tmp_path: Path) -> None:
        """
        With no route, only those whom the directory says go elsewhere than to the default, which
        must read a spooled file that has not its form.
        """
        default, other = Store(), Store()
        default.capabilities = LF
        backend = RoutedBackend(
            Destination("default", default), None, {"other": Destination("other", other)}
        )
        message = MemoryMessage(b"x\r\n").spooled(str(tmp_path))
        sent = evolve(mailbox("y@example.org"), attributes={"backend": "other"})

        backend.deliver(message, [mailbox("x@example.org"), mailbox("z@example.org")])
        backend.deliver(message, [mailbox("x@example.org"), sent])

        assert [["x@example.org", "z@example.org"], ["x@example.org"]] == [
            theirs for _, theirs in default.calls
        ]
        assert [None, None] == [each.path for each, _ in default.calls]
        assert [(message, ["y@example.org"])] == other.calls
        assert "other" == backend.destination(sent).name

    def test_message_in_memory(self, house: House) -> None:
        """
        A message without a file is handed on as it is.
        """
        house.a.capabilities = LF
        message = MemoryMessage(b"x")

        House(house.a, house.b).backend.deliver(message, [mailbox("x@example.org")])

        assert message is house.a.calls[0][0]


@implementer(IDirectory)
class Town:
    def __init__(self, name: str) -> None:
        self.name = name

    def resolve(self, mailbox: Mailbox) -> list[Mailbox]:
        return [Mailbox(self.name, mailbox.domain)]


class TestRoutedDirectory:
    ROUTES: Patterns[IDirectory] = Patterns(
        [("example.org", Town("a")), ("ann@example.net", Town("b"))]
    )

    def test_interface(self) -> None:
        """
        It is a directory like others.
        """
        assert verifyObject(IDirectory, RoutedDirectory(self.ROUTES, None))

    @pytest.mark.parametrize(
        ("name", "address"),
        [("a", "x@example.org"), ("b", "ann@example.net"), ("rest", "bob@example.net")],
    )
    def test_resolve(self, name: str, address: str) -> None:
        """
        The directory of the route is asked, else the default.
        """
        asked = mailbox(address)

        assert [Mailbox(name, asked.domain)] == RoutedDirectory(self.ROUTES, Town("rest")).resolve(
            asked
        )

    def test_nobody_else(self) -> None:
        """
        Without a default, nobody lives where no route leads.
        """
        with pytest.raises(PermanentFailure) as caught:
            RoutedDirectory(self.ROUTES, None).resolve(mailbox("bob@example.net"))

        assert NO_SUCH_USER == caught.value.reply
