"""
From the words of ``--auth`` to a checker.
"""

from __future__ import annotations

import inspect
import os
from difflib import get_close_matches
from importlib.util import find_spec
from textwrap import fill, indent
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import findCheckerFactories

from .plugins import IProvenName

_OURS = (IUsernamePassword, IProvenName)


def checker_factories() -> list[Any]:
    """
    What can stand before the first colon, sorted by name: those that have something for us.
    """
    found = [
        each
        for each in findCheckerFactories()
        if any(interface in _OURS for interface in each.credentialInterfaces)
    ]
    return sorted(found, key=lambda each: str(each.authType))


def checker_from_string(words: str) -> Any:
    """
    The checker that *words* ask for: ``scram:/etc/lmtpsvc/logins``.

    Raises:
        ValueError: There is none; the text is one line.
    """
    name, _, argument = words.partition(":")
    factories = {each.authType: each for each in checker_factories()}
    factory = factories.get(name)
    if factory is None:
        close = get_close_matches(name, factories, 1)
        question = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"no checker is called {name!r}: {question}installed: {', '.join(factories)}"
        )
    if name == "unix" and find_spec("crypt") is None:
        raise ValueError("unix: needs the module crypt, which Python has had up to 3.12")
    if name == "file" and not os.access(argument, os.R_OK):
        # Twisted's own would start all the same, and then nobody could log in.
        raise ValueError(f"file: {argument or 'PATH'} cannot be read")
    try:
        return _with_octets(factory.generateChecker(argument))
    except Exception as error:
        # What a plugin raises is not documented, and a mistake of the operator's.
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(said if said.startswith(f"{name}:") else f"{name}: {said}") from error


def _with_octets(checker: Any) -> Any:
    """
    *checker*; Twisted's ``memory:`` has its users as text, and compares them with octets.
    """
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        checker.users = {_octets(user): _octets(word) for user, word in checker.users.items()}
    return checker


def _octets(word: Any) -> bytes:
    return word.encode() if isinstance(word, str) else bytes(word)


def describe_checkers() -> str:
    """
    The text of ``--help-auth``.
    """
    parts = []
    for factory in checker_factories():
        text = fill(" ".join(inspect.cleandoc(factory.authHelp).split()), 75)
        argument = " ".join(factory.argStringFormat.split())
        parts.append(f"{factory.authType}:{argument}\n{indent(text, '    ')}\n")
    return "\n".join(parts)
