"""
Several messages, stored together: each step is taken for all, and the disk is waited for once.

All messages are written to ``tmp``, and made durable; then shown in ``new``, by a rename or by hard
links; then the directories are made durable, and all are answered.  What fails for one mailbox is
answered for that one, and the others go on.  Where making all durable at once fails, it is done one
by one, to find out whose fault it was.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from attrs import evolve
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import from_os_error
from .identity import as_user
from .places import Place, Places
from .pool import Pool
from .posting import Posting
from .quotas import Quotas
from .settings import Settings
from .sharing import Shared
from .syncing import Syncing
from .target import Answer, Target, fire

T = TypeVar("T")

_log = Logger()

#: Mailboxes that are shown a message before the disk is waited for: where there are very many, the
#: first are not to wait for the last.
AT_ONCE: Final = 256


class Batch:
    """
    Stores *postings*, in a worker thread.  Answers that cannot wait are given through *pool*.
    """

    def __init__(
        self,
        postings: list[Posting],
        settings: Settings,
        places: Places,
        syncing: Syncing,
        quotas: Quotas,
        pool: Pool,
    ) -> None:
        self._postings = postings
        self._settings, self._places, self._syncing, self._pool = settings, places, syncing, pool
        self._quotas = quotas
        self._answers: list[Answer] = []
        # Shown, but not yet safe; and what could not be linked and needs a copy of its own.
        self._shown: list[tuple[Posting, Target]] = []
        self._left: list[Posting] = []
        # Copies of other nodes, until they are linked.
        self._held: list[Shared] = []

    def store(self) -> list[Answer]:
        """
        Do it all; returns the answers that have not been given on the way.
        """
        all_targets = [target for posting in self._postings for target in posting.targets]
        try:
            postings = self._postings
            for posting in postings:
                self._adopt(posting)
                self._reserve(posting)
            while postings:
                self._left = []
                self._store_round(postings)
                # Every posting that is left has fewer targets than the one that it comes from.
                postings = self._left
        except Exception:
            # A defect of ours; who has been answered before stays so.
            self._answers += [(target, Failure()) for target in all_targets]
        finally:
            for each in self._held:
                each.let_go()
            for target in all_targets:
                # Of those that were called off, and after a defect.
                self._end(target)
        return self._answers

    def _store_round(self, postings: list[Posting]) -> None:
        together = self._syncing.whole_pays(len(postings))
        written = [each for each in postings if self._write(each, durably=not together)]
        if together:
            written = self._made_durable(written)
        for posting in written:
            self._show(posting)
        self._settle()

    def _adopt(self, posting: Posting) -> None:
        """
        Take the copy that another node has stored, if there is one.
        """
        sharing, message = self._settings.sharing, posting.message
        if sharing is None or not message.is_for_all:
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
        for target in [target for target in posting.targets if target.quota is not None]:
            if not self._attempt(posting, target, partial(self._reserve_for, posting, target)):
                posting.targets.remove(target)

    def _reserve_for(self, posting: Posting, target: Target) -> None:
        assert target.quota is not None, "only those that have one come here"
        target.reservation = self._quotas.reserve(target.place, target.quota, posting.octets)

    def _end(self, target: Target, *, delivered: bool = False) -> None:
        """
        The room for the message is used now, or free again.
        """
        if target.reservation is not None:
            target.reservation.end(delivered=delivered)

    # ── into tmp ─────────────────────────────────────────────────────────────────────────────────

    def _write(self, posting: Posting, *, durably: bool) -> bool:
        """
        Write the message into the first mailbox that takes it; False if none does.
        """
        while posting.targets:
            # One that cannot be written to must not be in the way of the others.
            target = posting.targets.pop(0)
            if target.is_cancelled:
                continue
            if self._attempt(posting, target, partial(self._write_into, posting, target, durably)):
                return True
        return False

    def _write_into(self, posting: Posting, target: Target, durably: bool) -> None:
        if durably:
            with self._syncing.timed():
                posting.write(target, durably=True)
        else:
            posting.write(target, durably=False)

    def _made_durable(self, written: list[Posting]) -> list[Posting]:
        """
        Wait for the disk to have the messages; returns those that it has.
        """
        safe: list[Posting] = []
        for group in _by_device(written, lambda posting: posting.device):
            whole = self._sync_whole(group[0].source_place, "tmp")
            for posting in group:
                source = posting.source
                assert source is not None, "it was written"
                if self._attempt(posting, source, posting.check if whole else posting.sync):
                    safe.append(posting)
                elif posting.targets:
                    self._left.append(evolve(posting))
        return safe

    # ── into new ─────────────────────────────────────────────────────────────────────────────────

    def _show(self, posting: Posting) -> None:
        """
        Link the file into ``new`` of all, then move it into that of the source.
        """
        unlinked: list[Target] = []
        for target in posting.targets:
            if target.begin():
                self._attempt(posting, target, partial(self._link, posting, target, unlinked))
            if len(self._shown) >= AT_ONCE:
                self._settle()
                self._answer_now()
        if unlinked:
            self._left.append(evolve(posting, targets=unlinked))
        source = posting.source
        assert source is not None, "it was written"
        if not source.begin():
            posting.withdraw()
        elif self._attempt(posting, source, posting.rename):
            self._shown.append((posting, source))

    def _link(self, posting: Posting, target: Target, unlinked: list[Target]) -> None:
        if posting.link(target):
            self._shown.append((posting, target))
        else:
            unlinked.append(target)

    def _settle(self) -> None:
        """
        Wait for the disk to have the names of what has been shown, and answer.
        """
        shown, self._shown = self._shown, []
        if self._syncing.whole_pays(len({target.place for _, target in shown})):
            for group in _by_device(shown, lambda each: each[0].device):
                if self._sync_whole(group[0][1].place, "new"):
                    for posting, target in group:
                        step = partial(self._places.have_become_safe, target.place)
                        self._finish(posting, target, step)
                else:
                    self._settle_each(group)
        else:
            self._settle_each(shown)

    def _settle_each(self, shown: list[tuple[Posting, Target]]) -> None:
        for posting, target in shown:
            self._finish(posting, target, partial(self._sync, target.place))
            if len(shown) > 1:
                self._answer_now()

    def _finish(self, posting: Posting, target: Target, step: Callable[[], object]) -> None:
        """
        Do the last *step*, and answer.
        """
        if self._attempt(posting, target, step):
            self._succeed(posting, target)
        else:
            # Nobody knows whether it would be there; the client keeps its copy.
            posting.withdraw(target)

    def _sync(self, place: Place) -> None:
        with self._syncing.timed():
            self._places.sync(place)

    def _sync_whole(self, place: Place, name: str) -> bool:
        """
        Make all durable that is on the file system of *place*; False if that is not certain.
        """
        try:
            with as_user(place.uid, place.gid):
                self._syncing.whole(f"{place.directory}/{name}")
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                _log.warn(
                    "{directory}: syncfs failed ({error}), syncing one by one",
                    directory=place.directory,
                    error=error,
                )
            return False
        return True

    # ── answers ──────────────────────────────────────────────────────────────────────────────────

    def _attempt(self, posting: Posting, target: Target, step: Callable[[], object]) -> bool:
        """
        Do one *step*; False if it failed, and *target* has its answer.
        """
        try:
            step()
        except OSError as error:
            _log.error(
                "{id}: no delivery to {mailbox} in {directory}: {error}",
                id=posting.message.id,
                mailbox=target.mailbox,
                directory=target.place.directory,
                error=error,
            )
            refusal = from_os_error(error, self._settings.mailbox_full)
            self._answers.append((target, Failure(refusal)))
        except Exception:
            self._answers.append((target, Failure()))
        else:
            return True
        self._end(target)
        return False

    def _succeed(self, posting: Posting, target: Target) -> None:
        self._end(target, delivered=True)
        self._answers.append((target, posting.codes(target)))
        if self._places.is_untidy(target.place):
            self._pool.run(partial(self._places.tidy, target.place))

    def _answer_now(self) -> None:
        answers, self._answers = self._answers, []
        self._pool.post(fire, answers)


def _by_device(items: list[T], device: Callable[[T], int]) -> list[list[T]]:
    """
    Those on the same file system together.
    """
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(device(item), []).append(item)
    return list(groups.values())
