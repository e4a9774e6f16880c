"""
Several messages in one transaction, and what is done when that fails.

What fails for all is answered at once.  What may be the fault of one is done once more, each
delivery by itself.  Once COMMIT has been sent nothing is tried again: when its answer does not
come, nobody knows whether it happened, and the client decides.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import from_os_error, refusal
from ..pool import Pool
from ..target import Answer, fire
from .engine import writes
from .failures import UNREACHABLE, Judgement, Means, in_words, judge
from .posting import Posting
from .settings import Settings
from .writing import Writing

_log = Logger()

#: How often a deadlock may be ended at our cost.
_TRIES: Final = 4


class Batch:
    """
    Stores *postings*, in a worker thread.  Answers that cannot wait are given through *pool*.
    """

    def __init__(
        self, postings: list[Posting], settings: Settings, engine: Engine, pool: Pool
    ) -> None:
        self._postings, self._settings = postings, settings
        self._engine, self._pool = engine, pool
        self._answers: list[Answer] = []

    def store(self) -> list[Answer]:
        """
        Do it all; returns the answers that have not been given on the way.
        """
        postings = [posting for posting in self._postings if self._read(posting)]
        if postings:
            try:
                self._store(postings)
            except Exception:
                # A defect of ours; who has been answered before stays so.
                failure = Failure()
                self._answers += [(t, failure) for each in postings for t in each.targets]
        return self._answers

    def _read(self, posting: Posting) -> bool:
        """
        Read the message; False if there is nothing to do.
        """
        if all(target.is_cancelled for target in posting.targets):
            return False
        try:
            _ = posting.text
        except OSError as error:
            _log.error("{id} cannot be read: {error}", id=posting.message.id, error=error)
            failure = Failure(from_os_error(error))
        except Exception:
            failure = Failure()
        else:
            return True
        self._answers += [(target, failure) for target in posting.targets]
        return False

    def _store(self, postings: list[Posting]) -> None:
        failed = self._together(postings)
        if failed is None:
            return
        alone = [Posting(each.source, [target]) for each in postings for target in each.targets]
        if failed.means is Means.ALL or len(alone) == 1:
            self._refuse(postings, failed)
            return
        for number, posting in enumerate(alone):
            failed = self._together([posting])
            if failed is None:
                self._answer_now()
            elif failed.means is Means.ALL:
                self._refuse(alone[number:], failed)
                return
            else:
                self._refuse([posting], failed)

    def _together(self, postings: list[Posting]) -> Judgement | None:
        """
        All in one transaction; None if it was committed.
        """
        for left in reversed(range(_TRIES)):
            judgement = self._transact(postings)
            if judgement is None or judgement.means is not Means.AGAIN or left == 0:
                return judgement
        raise AssertionError("not reached")

    def _transact(self, postings: list[Posting]) -> Judgement | None:
        committing = False
        try:
            try:
                connection = writes(self._engine.connect())
            except DBAPIError as error:
                self._say(postings, error)
                return UNREACHABLE
            with connection:
                transaction = connection.begin()
                try:
                    writing = Writing(connection, self._settings.compression)
                    writing.write(postings)
                    committing = True
                    transaction.commit()
                except BaseException:
                    # A connection on which something went wrong is not used again: what state the
                    # driver, or the disk below SQLite, is in nobody knows.
                    connection.invalidate()
                    raise
        except Exception as error:
            judgement = judge(error)
            if not isinstance(error, (SQLAlchemyError, OSError)):
                _log.failure("a defect in storing mail")
            self._say(postings, error)
            if committing and judgement.means is not Means.AGAIN:
                return Judgement(Means.ALL, judgement.reply)
            return judgement
        full = Failure(refusal(self._settings.mailbox_full))
        self._answers += [(target, None) for target in writing.written]
        self._answers += [(target, full) for target in writing.full]
        return None

    def _say(self, postings: list[Posting], error: Exception) -> None:
        _log.error(
            "no delivery of {ids}: {error}",
            ids=", ".join(posting.message.id for posting in postings),
            error=in_words(error),
        )

    def _refuse(self, postings: list[Posting], judgement: Judgement) -> None:
        failure = Failure(judgement.refusal)
        self._answers += [(target, failure) for each in postings for target in each.targets]
        self._answer_now()

    def _answer_now(self) -> None:
        answers, self._answers = self._answers, []
        self._pool.post(fire, answers)
