"""
Plugins out of what there is: a class becomes something that the command line can name.

In a file of ``twisted/plugins``, one line is enough::

    tickets = BackendPlugin("tickets", Tickets)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.plugin import IPlugin
from zope.interface import implementer

from .interfaces import (
    IBackend,
    IBackendFactory,
    IDirectory,
    IDirectoryFactory,
    IExtensionFactory,
)
from .session.extensions import Extension

T = TypeVar("T")


class _Plugin(Generic[T]):
    """
    Calls *make* with the reactor and the words; *name* stands before the first colon.

    The synopsis comes from the arguments behind the reactor: one that has no default is a word, one
    that has is an option (``tickets:DATABASE[:queue=support]``).  The help is the docstring.  All
    words are str; *make* raises ValueError, with one line for the operator, for those that it does
    not like.
    """

    def __init__(
        self,
        name: str,
        make: Callable[..., T],
        synopsis: str | None = None,
        help: str | None = None,
    ) -> None:
        self.name, self._make = name, make
        self._signature = inspect.signature(make)
        self.synopsis = _synopsis(name, self._signature) if synopsis is None else synopsis
        self.help = (inspect.getdoc(make) or "") if help is None else help
        #: Whose it is, for an operator who has to do something about it: this class is nobody's.
        self.made_by = f"{make.__module__}.{getattr(make, '__qualname__', make)}"

    def build(self, reactor: object, *words: str, **options: str) -> T:
        """
        Make it.
        """
        try:
            self._signature.bind(reactor, *words, **options)
        except TypeError as error:
            raise ValueError(f"{error}; expected {self.synopsis}") from error
        return self._make(reactor, *words, **options)


@implementer(IPlugin, IBackendFactory)
class BackendPlugin(_Plugin[IBackend]):
    """
    A class of backends, or another callable that returns one, as a plugin.
    """


@implementer(IPlugin, IDirectoryFactory)
class DirectoryPlugin(_Plugin[IDirectory]):
    """
    A class of directories, or another callable that returns one, as a plugin.
    """


@implementer(IPlugin, IExtensionFactory)
class ExtensionPlugin(_Plugin[Extension]):
    """
    A class of ESMTP extensions, or another callable that returns one, as a plugin.
    """


def _synopsis(name: str, signature: inspect.Signature) -> str:
    words, options = [name], []
    for argument in list(signature.parameters.values())[1:]:
        if argument.kind in {argument.VAR_POSITIONAL, argument.VAR_KEYWORD}:
            continue
        if argument.default is argument.empty:
            words.append(argument.name.upper())
        else:
            options.append(f"[:{argument.name}={argument.default}]")
    return ":".join(words) + "".join(options)
