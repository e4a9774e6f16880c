"""
From the words of the command line to a backend, a directory or an extension, in the manner of
Twisted's endpoint strings: ``NAME:word:key=value``.

In a word, ``\\:`` is a colon, ``\\=`` an equals sign and ``\\\\`` a backslash.  What may stand before
the first colon is found with `twisted.plugin` in ``twisted/plugins``, so that a stranger's wheel
adds its own there.  Every mistake is a ValueError of one line that an operator can act upon.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from textwrap import fill, indent
from typing import Final, TypeAlias, TypeVar

from attrs import frozen
from twisted.logger import Logger
from twisted.plugin import getPlugins

from .interfaces import (
    Capabilities,
    IBackend,
    IBackendFactory,
    IDirectory,
    IDirectoryFactory,
    IExtensionFactory,
)
from .session.extensions import Extension

# zope.interface before 6.1 knows no | between interfaces; as a text, only mypy reads it.
_Any: TypeAlias = "IBackendFactory | IDirectoryFactory | IExtensionFactory"
_Factory = TypeVar("_Factory", IBackendFactory, IDirectoryFactory, IExtensionFactory)

#: Octets of the path of a UNIX socket (unix(7), without the zero at its end).
LONGEST_PATH: Final = 107

_log = Logger()

_well_escaped = re.compile(r"(?:[^\\]|\\[:=\\])*", re.DOTALL).fullmatch
_words = re.compile(r":((?:[^:\\]|\\.)*)", re.DOTALL).findall
_is_name = re.compile(r"[^:=\\]+").fullmatch
_option = re.compile(r"((?:[^=\\]|\\.)*)=(.*)", re.DOTALL).fullmatch


@frozen
class Spec:
    """
    What one string says, its escapes undone.
    """

    name: str
    words: Sequence[str]
    options: Mapping[str, str]


def parse(text: str) -> Spec:
    """
    Take ``NAME:word:key=value`` apart.

    Raises:
        ValueError: It is not of that form.
    """
    if _well_escaped(text) is None:
        raise ValueError(f"{text}: a backslash stands before ':', '=' or '\\' only; write '\\\\'")
    first, *rest = _words(":" + text)
    if not first or _option(first):
        raise ValueError(f"{text!r} does not start with a name: write NAME or NAME:ARGUMENTS")
    name = _unescaped(first)
    words: list[str] = []
    options: dict[str, str] = {}
    for word in rest:
        option = _option(word)
        if option is None:
            words.append(_unescaped(word))
            continue
        key, value = _unescaped(option[1]), _unescaped(option[2])
        if not key.isidentifier():
            raise ValueError(f"{name}: {key!r} is no option; write '\\=' for '=' within a word")
        if key in options:
            raise ValueError(f"{name}: {key} is given twice")
        options[key] = value
    return Spec(name, words, options)


def backend_from_string(reactor: object, text: str) -> IBackend:
    """
    The backend that *text* asks for: ``maildir:/srv/mail/{domain}/{user}:detail=folder``.

    Raises:
        ValueError: There is none, or its factory does not take these words.
    """
    spec = parse(text)
    factory = _named(spec.name, "backend", backend_factories())
    made = _build(factory, reactor, spec)
    if not IBackend.providedBy(made):
        raise ValueError(f"{spec.name}: {_where(factory)} is broken: it made no IBackend")
    if not _has_capabilities(made):
        raise ValueError(
            f"{spec.name}: {_where(factory)} is broken: it says no lmtpsvc.interfaces.Capabilities"
        )
    return made


def directory_from_string(reactor: object, text: str) -> IDirectory:
    """
    The directory that *text* asks for: ``file:/etc/lmtpsvc/users``.

    Raises:
        ValueError: There is none, or its factory does not take these words.
    """
    spec = parse(text)
    factory = _named(spec.name, "directory", directory_factories())
    made = _build(factory, reactor, spec)
    if not IDirectory.providedBy(made):
        raise ValueError(f"{spec.name}: {_where(factory)} is broken: it made no IDirectory")
    return made


def extension_from_string(reactor: object, text: str) -> Extension:
    """
    The ESMTP extension that *text* asks for.

    Raises:
        ValueError: There is none, or its factory does not take these words.
    """
    spec = parse(text)
    factory = _named(spec.name, "extension", extension_factories())
    made = _build(factory, reactor, spec)
    if not isinstance(made, Extension):
        raise ValueError(  # noqa: TRY004 - the operator's words asked for it
            f"{spec.name}: {_where(factory)} is broken: it made no Extension"
        )
    return made


def backend_factories() -> list[IBackendFactory]:
    """
    What can stand before the first colon of a backend, sorted by name.
    """
    return sorted(filter(_is_sound, getPlugins(IBackendFactory)), key=lambda found: found.name)


def directory_factories() -> list[IDirectoryFactory]:
    """
    What can stand before the first colon of a directory, sorted by name.
    """
    return sorted(filter(_is_sound, getPlugins(IDirectoryFactory)), key=lambda found: found.name)


def extension_factories() -> list[IExtensionFactory]:
    """
    What can stand before the first colon of an extension, sorted by name.
    """
    return sorted(filter(_is_sound, getPlugins(IExtensionFactory)), key=lambda found: found.name)


def describe(factories: Iterable[_Any]) -> str:
    """
    The text of ``--help-backends`` and its like: each synopsis, and its help wrapped below.

    A paragraph with an indented line in it, a table perhaps, is left as it is.
    """
    parts = []
    for factory in factories:
        title = factory.synopsis
        if not title.startswith(factory.name):
            title = f"{factory.name}: {title}"
        paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(factory.help))
        text = "\n\n".join(
            paragraph if re.search(r"^\s", paragraph, re.MULTILINE) else fill(paragraph, 75)
            for paragraph in paragraphs
        )
        parts.append(f"{title}\n{indent(text, '    ')}\n")
    return "\n".join(parts)


def _has_capabilities(backend: IBackend) -> bool:
    try:
        capabilities: object = backend.capabilities
    except Exception:
        return False
    return isinstance(capabilities, Capabilities) and capabilities.line_ending in {"\r\n", "\n"}


def _unescaped(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word)


def _is_sound(factory: _Any) -> bool:
    """
    Whether a plugin has the three texts, and a name that can be said: one that has not is logged, and
    harms nobody else.
    """
    try:
        texts = factory.name, factory.synopsis, factory.help
        sound = all(isinstance(text, str) for text in texts) and bool(_is_name(factory.name))
    except Exception:
        sound = False
    if not sound:
        _log.error(
            "{plugin} is left out: its name, synopsis and help must be str, and in the name there must"
            " be no ':', '=' or '\\'",
            plugin=_where(factory),
        )
    return sound


def _named(name: str, kind: str, factories: Sequence[_Factory]) -> _Factory:
    found = [factory for factory in factories if factory.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join(map(_where, found))
        raise ValueError(f"{name}: more than one {kind} has this name, uninstall one: {places}")
    names = [factory.name for factory in factories]
    close = get_close_matches(name, names, 1)
    question = f"did you mean {close[0]!r}? " if close else ""
    installed = ", ".join(names) or "none"
    raise ValueError(f"no {kind} is called {name!r}: {question}installed: {installed}")


def _build(factory: _Any, reactor: object, spec: Spec) -> object:
    """
    What *factory* makes; whatever goes wrong, the ValueError has one line and says who speaks.
    """
    try:
        # Wrong words are told from a TypeError inside of build, which is a defect of the plugin.
        inspect.signature(factory.build).bind(reactor, *spec.words, **spec.options)
    except TypeError as error:
        raise ValueError(f"{spec.name}: {error}; expected {factory.synopsis}") from error
    try:
        return factory.build(reactor, *spec.words, **spec.options)
    except ValueError as error:
        said = " ".join(str(error).split()) or f"expected {factory.synopsis}"
        if not said.startswith(f"{spec.name}:"):
            said = f"{spec.name}: {said}"
        raise ValueError(said) from error
    except OSError as error:
        said = error.strerror or " ".join(str(error).split())
        if isinstance(error.filename, (str, bytes)):
            said = f"{error.filename!s}: {said}"
        raise ValueError(f"{spec.name}: {said}; expected {factory.synopsis}") from error
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{spec.name}: {_where(factory)} failed with {said}; expected {factory.synopsis}"
        ) from error


def _where(factory: object) -> str:
    made_by = getattr(factory, "made_by", None)
    if isinstance(made_by, str):
        return made_by
    return f"{type(factory).__module__}.{type(factory).__qualname__}"
