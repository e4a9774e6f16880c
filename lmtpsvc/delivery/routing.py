"""
From the address in a RCPT to the mailboxes that it means.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Final
from unicodedata import normalize

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, FirstError, fail, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .. import replies
from ..domains import ascii_domain
from ..envelope import Address, Mailbox, ValidSince
from ..errors import refusal
from ..interfaces import IBackend, IDirectory
from ..ownership import check_owner
from ..quota import ignoring_quota, with_declared_size
from .awaiting import as_deferred, check_success, drop, in_time

#: RFC 2142 §3 to §5.
_OFFICES: Final = frozenset(
    {
        *("info", "marketing", "sales", "support"),
        *("abuse", "noc", "security"),
        *("postmaster", "hostmaster", "usenet", "news", "webmaster", "www", "uucp", "ftp"),
    }
)


#: Mailboxes of addresses that are remembered, at most.
REMEMBERED: Final = 4096


@frozen
class AddressRules:
    """
    How an address is read: a *delimiter* splits ``user+detail`` (empty: nothing does), *fold_case*
    makes the local part lower case, *hostname* is the domain of the bare ``<Postmaster>``.
    """

    hostname: str
    delimiter: str = "+"
    fold_case: bool = True
    # The same few recipients come again and again.
    _known: dict[Address, Mailbox] = field(factory=dict, init=False, eq=False, repr=False)

    def mailbox(self, address: Address) -> Mailbox:
        """
        The mailbox that *address* says, whether or not there is one.  An internationalised domain
        is in the form of DNS (`lmtpsvc.domains`), however it was said.
        """
        known = self._known
        mailbox = known.get(address)
        if mailbox is None:
            mailbox = self._read(address)
            if len(known) >= REMEMBERED:
                known.clear()
            known[address] = mailbox
        return mailbox

    def _read(self, address: Address) -> Mailbox:
        local, domain = address.local, ascii_domain(address.domain or self.hostname)
        if self.fold_case:
            local = local.lower()
        if not local.isascii():
            # One spelling for one name, or two mailboxes for one person.
            local = normalize("NFC", local)
        if self.delimiter:
            # "+lists@..." is a user of that name, not a detail of nobody.
            split = local.find(self.delimiter, 1)
            if split > 0:
                return Mailbox(local[:split], domain, local[split + len(self.delimiter) :])
        return Mailbox(local, domain)


@frozen
class Routing:
    """
    Asks the directory where mail goes, and the backend whether it would take it.
    """

    directory: IDirectory
    backend: IBackend
    rules: AddressRules
    clock: IReactorTime
    lookup_seconds: float

    def resolve(
        self,
        address: Address,
        size: int | None = None,
        since: ValidSince | None = None,
        *,
        ignore_quota: bool = False,
        binary: bool = False,
    ) -> Deferred[tuple[Mailbox, ...]]:
        """
        As `look_up`; what it returns or raises is what this fires with.
        """
        try:
            return as_deferred(
                self.look_up(address, size, since, ignore_quota=ignore_quota, binary=binary)
            )
        except BaseException:
            return fail()

    def look_up(
        self,
        address: Address,
        size: int | None = None,
        since: ValidSince | None = None,
        *,
        ignore_quota: bool = False,
        binary: bool = False,
    ) -> tuple[Mailbox, ...] | Deferred[tuple[Mailbox, ...]]:
        """
        Return the mailboxes, at least one, that the backend would deliver to; or a Deferred of them,
        if that is not known at once.

        *size* is what the client said that the message has, in octets (RFC 1870), *since* when the
        mailbox must have been the same person's (RFC 7293), *binary* that no octet may change
        (RFC 3030 §3).  With *ignore_quota*, the mailboxes take what comes.

        Raises, or fails:
            DeliveryError: With the reply to RCPT.
            Exception: A defect of a plugin.
        """
        if binary and not self.backend.capabilities.binary:
            # It was announced; then the configuration was read again.
            raise refusal(replies.BINARY_NOT_STORED)
        said = self.directory.resolve(self.rules.mailbox(address))
        if since is None and not ignore_quota and isinstance(said, (list, tuple)):
            verified = self._verify(said, size)
            if isinstance(verified, tuple):
                return verified
            return self._in_time(verified)
        found = as_deferred(said)
        if since is not None:
            found.addCallback(_of_the_same_owner, address, since)
        if ignore_quota:
            found.addCallback(lambda mailboxes: [ignoring_quota(each) for each in mailboxes])
        return self._in_time(found.addCallback(self._verify, size))

    def _in_time(self, resolved: Deferred[tuple[Mailbox, ...]]) -> Deferred[tuple[Mailbox, ...]]:
        if resolved.called and not resolved.paused:
            return resolved
        return in_time(resolved, self.lookup_seconds, self.clock)

    def _verify(
        self, mailboxes: Sequence[Mailbox], size: int | None
    ) -> tuple[Mailbox, ...] | Deferred[tuple[Mailbox, ...]]:
        # None, from a directory that forgot its answer, is a defect and not an unknown user.
        if len(mailboxes) == 0:
            raise refusal(replies.NO_SUCH_USER)
        found: list[Mailbox] = []
        verdicts: list[Awaitable[None]] = []
        for each in mailboxes:
            mailbox = each
            if not each.domain.isascii():
                # A directory may say it in either form; what stores mail knows one.
                mailbox = evolve(each, domain=ascii_domain(each.domain))
            found.append(mailbox)
            asked = mailbox if size is None else with_declared_size(mailbox, size)
            try:
                verdict = self.backend.verify(asked)
            except BaseException:
                for other in verdicts:
                    drop(other)
                raise
            if verdict is not None:
                verdicts.append(verdict)
        if not verdicts:
            return tuple(found)
        waiting: list[Deferred[None]] = [as_deferred(verdict) for verdict in verdicts]
        # consumeErrors: the first refusal is the reply, those after it are no news.
        gathered = gatherResults(waiting, consumeErrors=True)
        return gathered.addCallbacks(_if_all_say_yes, _unwrap, callbackArgs=(tuple(found),))


def _if_all_say_yes(verdicts: Sequence[object], found: tuple[Mailbox, ...]) -> tuple[Mailbox, ...]:
    for verdict in verdicts:
        check_success(verdict)
    return found


def _of_the_same_owner(
    mailboxes: Sequence[Mailbox], address: Address, since: ValidSince
) -> Sequence[Mailbox]:
    """
    *mailboxes*, if they have not changed hands.  An office is the same, whoever holds it (RFC 7293
    §5.1, item 1).
    """
    if address.local.lower() not in _OFFICES:
        for mailbox in mailboxes:
            check_owner(mailbox, since.moment)
    return mailboxes


def _unwrap(failure: Failure) -> Failure:
    """
    Take the refusal itself out of what gatherResults makes of it.
    """
    return failure.value.subFailure if isinstance(failure.value, FirstError) else failure
