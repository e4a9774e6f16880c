"""
What a users file says, once it has been read: who lives here, and who is an alias of whom.

Everything is one dict.  A key is an address with its case folded: ``ann@example.org`` for somebody,
``@example.org`` for a whole domain, ``postmaster@`` for a name in every domain.  A value is the
targets of an alias, or none for somebody who simply lives here.

The file's syntax is in `lmtpsvc.directory.lines`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from unicodedata import normalize

from attrs import evolve, field, frozen
from twisted.logger import Logger

from ..domains import ascii_domain
from ..envelope import Mailbox
from ..errors import refusal
from ..ownership import DOMAIN_SINCE, SINCE
from ..replies import CANNOT_LOOK_UP, NO_SUCH_USER
from .knowledge import NOTHING, Knowledge

#: How many addresses an alias may lead to, all aliases on the way counted.
MAX_TARGETS = 1000
#: How many aliases may follow one another.
MAX_DEPTH = 20

_SINCE: Final = frozenset({SINCE, DOMAIN_SINCE})

_log = Logger()


class BrokenAlias(ValueError):
    """
    An alias leads nowhere, round in a circle, or too far; the text says which.
    """


def fold(text: str) -> str:
    """
    *text* as look-ups compare it: lower case, composed (NFC).
    """
    return normalize("NFC", text.lower())


@frozen
class Entry:
    """
    What one address means; *line* is where the file says so.

    *targets* is empty for somebody who lives here, and not for an alias.  *known* is about whoever
    lives here under that address.
    """

    line: int
    targets: tuple[Mailbox, ...] = ()
    known: Knowledge = NOTHING


@frozen
class Table:
    """
    The addresses of one domain or many.

    *delimiters* are the characters that may stand between user and detail.
    """

    entries: Mapping[str, Entry] = field(repr=False)
    delimiters: str = "+"
    #: An entry says since when a mailbox has had its owner.
    tells_since: bool = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        told = any(
            entry.known.attributes and not _SINCE.isdisjoint(entry.known.attributes)
            for entry in self.entries.values()
        )
        object.__setattr__(self, "tells_since", told)

    def resolve(self, mailbox: Mailbox) -> Sequence[Mailbox]:
        """
        Where mail for *mailbox* goes, each place once.

        Raises:
            PermanentFailure: Nobody of that name lives here.
            TemporaryFailure: What it is an alias of leads nowhere.
        """
        key = self._key(mailbox)
        if key is None:
            raise refusal(NO_SUCH_USER)
        if not self.entries[key].targets:
            return [self._at_home(mailbox, key)]
        try:
            return self.follow(key, self._passed_on(mailbox, key))
        except BrokenAlias as error:
            # All aliases were followed when the file was read, but not with every detail that an
            # address may have, and a target may be listed with one.
            _log.error("{mailbox}: {problem}", mailbox=str(mailbox), problem=str(error))
            raise refusal(CANNOT_LOOK_UP) from error

    def follow(self, alias: str, detail: str = "") -> list[Mailbox]:
        """
        All mailboxes that the entry *alias* leads to, each once; *detail* goes to its targets.

        An alias that names itself among its targets means the mailbox of that name.

        Raises:
            BrokenAlias: There is no end to it, or not a good one.
        """
        # A dict, and not a set, keeps the order.
        homes: dict[Mailbox, None] = {}
        waiting = self._targets(alias, detail, (alias,))
        steps = 0
        while waiting:
            address, trail = waiting.pop()
            steps += 1
            if steps > MAX_TARGETS:
                raise BrokenAlias(f"leads to more than {MAX_TARGETS:,} addresses")
            key = self._key(address)
            # "@example.org: ann@example.org" does not make Ann known.
            if key is None or (key in trail and "@" in (key[0], key[-1])):
                raise BrokenAlias(
                    f"{address} is not known here: list it too (LMTP cannot forward elsewhere)"
                )
            if not self.entries[key].targets or key == trail[-1]:
                homes[self._at_home(address, key)] = None
            elif key in trail:
                raise BrokenAlias(f"goes round in a circle: {' -> '.join((*trail, key))}")
            elif len(trail) == MAX_DEPTH:
                raise BrokenAlias(f"is the first of more than {MAX_DEPTH} aliases in a row")
            else:
                waiting += self._targets(key, self._passed_on(address, key), (*trail, key))
        return list(homes)

    def _targets(
        self, key: str, detail: str, trail: tuple[str, ...]
    ) -> list[tuple[Mailbox, tuple[str, ...]]]:
        """
        The targets of one alias, the last one first, and the way that led to them.
        """
        targets = reversed(self.entries[key].targets)
        return [
            (evolve(target, detail=detail) if detail and not target.detail else target, trail)
            for target in targets
        ]

    def _passed_on(self, mailbox: Mailbox, key: str) -> str:
        """
        The detail that the targets of an alias get: one that is not what the alias is about.
        """
        return mailbox.detail if key == _address(mailbox.user, mailbox.domain) else ""

    def _key(self, mailbox: Mailbox) -> str | None:
        """
        The most exact entry for *mailbox*.
        """
        return next((key for key in self._keys(mailbox) if key in self.entries), None)

    def _keys(self, mailbox: Mailbox) -> Iterator[str]:
        user, detail, domain = mailbox.user, mailbox.detail, mailbox.domain
        if detail:
            for delimiter in self.delimiters:
                yield _address(f"{user}{delimiter}{detail}", domain)
        yield _address(user, domain)
        yield _address(user, "")
        yield _address("", domain)

    def _at_home(self, mailbox: Mailbox, key: str) -> Mailbox:
        """
        *mailbox*, in the one spelling that all spellings of a listed name share, and with what is
        known about it.
        """
        user = mailbox.user if key[0] == "@" else fold(mailbox.user)
        named = mailbox if user == mailbox.user else evolve(mailbox, user=user)
        return self.entries[key].known.about(named)


def _address(user: str, domain: str) -> str:
    return fold(f"{user}@{ascii_domain(domain)}")
