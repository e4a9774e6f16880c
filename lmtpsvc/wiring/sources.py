"""
Where the configuration is said, file and command line, and how a mistake in it is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from attrs import frozen

from ..config import (
    LIMITS,
    BrokenConfig,
    ListeningConfig,
    Problem,
    misbeliefs,
    read_file,
    structure_as,
)

_control = re.compile(r"[\x00-\x1f\x7f]").sub

C = TypeVar("C", bound=ListeningConfig)
T = TypeVar("T")


@frozen
class Sources(Generic[C]):
    """
    The *file*, if there is one, and what is *given* by the command line of *program*, by key, which
    counts more; both are *of* this kind.  Relative paths count from *directory*.
    """

    file: str | None
    given: Mapping[str, Any]
    program: str
    directory: str
    of: type[C]

    def read(self) -> C:
        """
        What file and command line say now.

        Raises:
            BrokenConfig: With all problems.
        """
        config = structure_as(self.of, self.said())
        if problems := list(misbeliefs(config)):
            raise BrokenConfig(problems)
        return config

    def said(self) -> dict[str, Any]:
        """
        The same as it stands there, each key with what counts.

        Raises:
            BrokenConfig: The file cannot be read.
        """
        said = read_file(self.file) if self.file is not None else {}
        if "listen" in self.given:
            # It stands in place of all of them.
            said.pop("listeners", None)
        limits = {name: words for name, words in self.given.items() if name in LIMITS}
        others = {name: words for name, words in self.given.items() if name not in LIMITS}
        of_file = said.get("limits", {})
        if limits and isinstance(of_file, dict):
            others["limits"] = {**of_file, **limits}
        return {**said, **others}

    def again(self, make: Callable[[C], T]) -> T:
        """
        What *make* makes of what file and command line say now.

        Raises:
            BrokenConfig: With all problems.
        """
        with _working_in(self.directory):
            return make(self.read())

    def told(self, error: BrokenConfig) -> str:
        """
        The first of the problems as one line, and how to see the others.
        """
        first, *others = error.problems
        line = self.shown(first)
        if others and self.file is not None:
            line += f"; and {len(others)} more: {self.of.check} {self.file}"
        return line

    def shown(self, problem: Problem) -> str:
        """
        A problem as one line, with the file or the option that it is in.
        """
        line = str(problem) if self.file is None else f"{self.file}: {problem}"
        if self.is_of_command_line(problem):
            *_, option = (each for each in problem.path if isinstance(each, str))
            line = f"--{option}: {problem.text}"
        # Text of the operator's may have several lines.
        return _control(lambda found: repr(found[0])[1:-1], line)

    def is_of_command_line(self, problem: Problem) -> bool:
        """
        Whether an option is wrong, and not a key of the file.
        """
        match problem.path:
            case (key,) | (key, int()) | ("limits", key):
                return self.file is None or key in self.given
            case _:
                return False


@contextmanager
def _working_in(directory: str) -> Iterator[None]:
    """
    In *directory*: a relative path means what it meant at start, although twistd has gone elsewhere
    with --rundir.
    """
    here = os.getcwd()
    if here == directory:
        yield
        return
    try:
        os.chdir(directory)
        yield
    except OSError as error:
        raise BrokenConfig([Problem((), f"{directory}: {error.strerror}")]) from error
    finally:
        os.chdir(here)
