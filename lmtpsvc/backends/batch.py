"""
Several messages, stored together: each step is taken for all, and the disk is waited for once.

All messages are written to ``tmp``, and made durable; then shown in ``new``, by a rename or by hard
links; then the directories are made durable, and all are answered.  What fails for one mailbox is
answered for that one, and the others go on.  Where making all durable at once fails, it is done one
by one, to find out whose fault it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar

from attrs import evolve
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import from_os_error
from .haste import Haste
from .places import Known, Place, Places
from .pool import Pool
from .posting import Posting, Shown
from .quotas import Quotas
from .settings import Settings
from .sharing import Shared, Sharing
from .syncing import Syncing
from .target import Answer, Target, fire
from .watched import Watched

T = TypeVar("T")

_log = Logger()

#: Directories that lead to a message, with those that its Maildir consists of.
_OF_A_MAILDIR: Final = 6

#: Mailboxes that are shown a message before the disk is waited for: where there are very many, the
#: first are not to wait for the last.
AT_ONCE: Final = 256


class Batch:
    """
    Stores several messages, once, in a worker thread.  Answers that cannot wait are given through
    *pool*.
    """

    def __init__(
        self,
        settings: Settings,
        places: Places,
        syncing: Syncing,
        quotas: Quotas,
        haste: Haste,
        pool: Pool,
    ) -> None:
        self._settings, self._places, self._syncing, self._pool = settings, places, syncing, pool
        self._quotas, self._haste = quotas, haste
        self._watched = Watched(places, syncing, haste)
        self._answers: list[Answer] = []
        # Shown, but not yet safe; and what could not be linked and needs a copy of its own.
        self._shown: list[Shown] = []
        self._left: list[Posting] = []
        # Copies of other nodes, until they are linked.
        self._held: list[Shared] = []

    def store(self, postings: list[Posting]) -> list[Answer]:
        """
        Do it all; returns the answers that have not been given on the way.
        """
        targets = [target for posting in postings for target in posting.targets]
        return self._answer(targets, partial(self._store, postings))

    def carry_on(self, written: list[Posting], shown: list[Shown]) -> list[Answer]:
        """
        Do what is left to do for those that are *written* to ``tmp`` or *shown* in ``new``, not yet
        durably; returns as `store` does.
        """
        targets = [target for _, target in shown]
        for posting in written:
            targets += [posting.written_to, *posting.targets]
        return self._answer(targets, partial(self._carry_on, written, shown))

    def find_out(
        self, postings: list[Posting], again: Callable[[list[Posting]], object]
    ) -> list[Answer]:
        """
        Find out what has become of *postings* that somebody stored who is no more: what is in ``new``
        is made safe, and the rest left to *again*, in the reactor thread; returns as `store` does.
        """
        targets = [target for posting in postings for target in posting.targets]
        return self._answer(targets, partial(self._find_out, postings, again))

    def _answer(self, targets: list[Target], work: Callable[[], None]) -> list[Answer]:
        """
        Have all *targets* answered, whatever becomes of the *work*.
        """
        try:
            work()
        except Exception:
            # A defect of ours; who has been answered before stays so.
            self._answers += [(target, Failure()) for target in targets]
        finally:
            for each in self._held:
                each.let_go()
            self._watched.close()
            for target in targets:
                # Of those that were called off, and after a defect.
                if target.reservation is not None:
                    target.reservation.end()
        return self._answers

    def _store(self, postings: list[Posting]) -> None:
        for posting in postings:
            if self._settings.sharing is not None:
                self._adopt(posting, self._settings.sharing)
            self._reserve(posting)
        self._store_rounds(postings)

    def _carry_on(self, written: list[Posting], shown: list[Shown]) -> None:
        self._shown = list(shown)
        self._sync_shown()
        for posting in written:
            if self._is_safe(posting, Posting.sync):
                self._show(posting)
        self._settle()
        self._store_rounds(self._left)

    def _find_out(self, postings: list[Posting], again: Callable[[list[Posting]], object]) -> None:
        left: list[Posting] = []
        for posting in postings:
            missing: list[Target] = []
            for target in posting.targets:
                try:
                    if posting.is_shown(target):
                        self._shown.append((posting, target))
                    else:
                        missing.append(target)
                except Exception as error:
                    self._fail(posting, target, error)
            posting.withdraw()
            if missing:
                left.append(evolve(posting, targets=missing))
        self._sync_shown()
        self._settle()
        if left:
            self._pool.post(again, left)

    def _sync_shown(self) -> None:
        """
        Wait for the files that had no name when they were last waited for, once for each.
        """
        shown, self._shown = self._shown, []
        for posting, target in shown:
            try:
                if posting.may_be_deleted:
                    with self._syncing.timed():
                        posting.sync_shown(target)
            except Exception as error:
                self._fail_shown(posting, target, error)
            else:
                self._shown.append((posting, target))

    def _store_rounds(self, postings: list[Posting]) -> None:
        while postings:
            self._left = []
            self._store_round(postings)
            # Every posting that is left has fewer targets than the one that it comes from.
            postings = self._left

    def _store_round(self, postings: list[Posting]) -> None:
        together = self._syncing.whole_pays(len(postings))
        watched = together or self._syncing.whole_pays(
            sum(self._directories(target) for each in postings for target in each.targets)
        )
        written = [each for each in postings if self._write(each, together, watched)]
        if together:
            written = self._made_durable(written)
        for posting in written:
            self._show(posting)
        self._settle()

    def _adopt(self, posting: Posting, sharing: Sharing) -> None:
        """
        Take the copy that another node has stored, if there is one.
        """
        message = posting.message
        if not message.is_for_all:
            return
        name = posting.names.make(message.sizes(self._settings.line_ending))
        found = sharing.find(message, self._settings.line_ending, name)
        if found is not None:
            posting.message = found
            self._held.append(found)

    # ── room ─────────────────────────────────────────────────────────────────────────────────────

    def _reserve(self, posting: Posting) -> None:
        """
        Leave out the mailboxes that are full.
        """
        full: list[Target] = []
        for target in posting.targets:
            if target.quota is not None:
                try:
                    room = self._quotas.reserve(target.place, target.quota, posting.octets)
                except Exception as error:
                    full.append(target)
                    self._fail(posting, target, error)
                else:
                    target.reservation = room
        if full:
            posting.targets = [target for target in posting.targets if target not in full]

    # ── into tmp ─────────────────────────────────────────────────────────────────────────────────

    def _write(self, posting: Posting, together: bool, watched: bool) -> bool:
        """
        Write the message into the first mailbox that takes it; False if none does.
        """
        while posting.targets:
            # One that cannot be written to must not be in the way of the others.
            target = posting.targets.pop(0)
            if target.is_cancelled:
                continue
            try:
                if together:
                    self._write_into(posting, target, durably=False)
                else:
                    with self._syncing.timed():
                        self._write_into(posting, target, durably=True, watched=watched)
            except Exception as error:
                self._fail(posting, target, error)
            else:
                return True
        return False

    def _write_into(
        self, posting: Posting, target: Target, *, durably: bool, watched: bool = True
    ) -> None:
        place = target.place
        if watched and not self._watched:
            self._watched.watch_above(place, self._settings.template.root)
        known = target.known = self._made(place, durably=durably and not watched)
        if watched or self._haste.wants_to_see(known):
            self._watched.watch(place, known)
        posting.write(target, durably=durably, calls=self._haste.calls(known, posting.octets))
        if not durably and posting.device not in self._watched:
            # Somebody has put the mailbox elsewhere since it was last looked at.
            posting.sync()

    def _made(self, place: Place, *, durably: bool) -> Known:
        """
        See to it that the Maildir is there; returns what is known of it.
        """
        return self._places.known(place) or self._places.make(place, durably=durably)

    def _made_durable(self, written: list[Posting]) -> list[Posting]:
        """
        Wait for the disk to have the messages; returns those that it has.
        """
        safe: list[Posting] = []
        for device, group in _by_device(written, lambda posting: posting.device):
            if device not in self._watched:
                # Each has been synced.
                safe += group
                continue
            whole = self._watched.sync(device, finally_=False)
            ask = Posting.check if whole else Posting.sync
            safe += [
                posting
                for posting in group
                if (whole and not posting.is_taken) or self._is_safe(posting, ask)
            ]
        return safe

    def _is_safe(self, posting: Posting, ask: Callable[[Posting], None]) -> bool:
        """
        *Ask* for the message; if the disk has not got it, another mailbox may still take it.
        """
        try:
            with self._syncing.timed():
                ask(posting)
        except Exception as error:
            self._fail(posting, posting.written_to, error)
            if posting.targets:
                self._left.append(evolve(posting))
            return False
        return True

    # ── into new ─────────────────────────────────────────────────────────────────────────────────

    def _show(self, posting: Posting) -> None:
        """
        Link the file into ``new`` of all, then move it into that of the source.
        """
        unlinked: list[Target] = []
        for target in posting.targets:
            if target.begin():
                try:
                    # Synced when the link is.
                    known = target.known = self._made(target.place, durably=False)
                    if posting.link(target, self._haste.calls(known, 0)):
                        self._shown.append((posting, target))
                    else:
                        unlinked.append(target)
                except Exception as error:
                    self._fail(posting, target, error)
            if len(self._shown) >= AT_ONCE:
                self._settle()
                self._answer_now()
        if unlinked:
            self._left.append(evolve(posting, targets=unlinked))
        source = posting.written_to
        if not source.begin():
            posting.withdraw()
            return
        try:
            posting.rename(self._haste.calls(self._places.known(source.place), 0))
        except Exception as error:
            self._fail(posting, source, error)
        else:
            self._shown.append((posting, source))

    def _settle(self) -> None:
        """
        Wait for the disk to have the names of what has been shown, and answer.
        """
        shown, self._shown = self._shown, []
        places = {target.place.directory: self._directories(target) for _, target in shown}
        if not self._watched or not self._syncing.whole_pays(sum(places.values())):
            self._settle_each(shown)
            return
        for device, group in _by_device(shown, lambda each: each[0].device):
            if device in self._watched and self._watched.sync(device, finally_=True):
                told_since = self._watched.tells_since(device)
                for posting, target in group:
                    try:
                        self._places.have_become_safe(target.place, target.known, told_since)
                    except Exception as error:
                        self._fail_shown(posting, target, error)
                    else:
                        self._succeed(posting, target)
            else:
                self._settle_each(group)

    def _directories(self, target: Target) -> int:
        """
        How many directories are to be made durable when *target* has been shown a message, about.
        """
        return 1 if self._places.is_safe(target.place) else _OF_A_MAILDIR

    def _settle_each(self, shown: list[Shown]) -> None:
        """
        Sync each directory once, however many messages have been shown there.
        """
        of_directory: dict[str, list[Shown]] = {}
        for each in shown:
            of_directory.setdefault(each[1].place.directory, []).append(each)
        for group in of_directory.values():
            try:
                with self._syncing.timed():
                    self._places.sync(group[0][1].place)
            except Exception as error:
                for posting, target in group:
                    self._fail_shown(posting, target, error)
            else:
                for posting, target in group:
                    self._succeed(posting, target)
            if len(of_directory) > 1:
                self._answer_now()

    # ── answers ──────────────────────────────────────────────────────────────────────────────────

    def _fail(self, posting: Posting, target: Target, error: Exception) -> None:
        """
        While *error* is handled: it is the answer to *target*.
        """
        if isinstance(error, OSError):
            _log.error(
                "{id}: no delivery to {mailbox} in {directory}: {error}",
                id=posting.message.id,
                mailbox=target.mailbox,
                directory=target.place.directory,
                error=error,
            )
            refusal = from_os_error(error, self._settings.mailbox_full)
            self._answers.append((target, Failure(refusal)))
        else:
            self._answers.append((target, Failure()))
        if target.reservation is not None:
            target.reservation.end()

    def _fail_shown(self, posting: Posting, target: Target, error: Exception) -> None:
        self._fail(posting, target, error)
        # Nobody knows whether it would be there; the client keeps its copy.
        posting.withdraw(target)

    def _succeed(self, posting: Posting, target: Target) -> None:
        if target.reservation is not None:
            target.reservation.end(delivered=True)
        self._answers.append((target, posting.codes(target)))
        known = self._places.known(target.place)
        if known is not None:
            self._haste.saw_use(known)
        if self._places.is_untidy(target.place):
            self._pool.run(partial(self._places.tidy, target.place))

    def _answer_now(self) -> None:
        answers, self._answers = self._answers, []
        self._pool.post(fire, answers)


def _by_device(items: list[T], device: Callable[[T], int]) -> Iterable[tuple[int, list[T]]]:
    """
    Those on the same file system together, with its device.
    """
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(device(item), []).append(item)
    return groups.items()
