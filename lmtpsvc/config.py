"""
The configuration: what the TOML file of ``--config`` and the command line say, as one typed value.

Keys are the names of the options.  Both sources are laid over one another while they are still
words, so that they are read by the same rules; a `Problem` remembers the key, and whoever shows it
says in which source that stands.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, ClassVar, Final, TypeVar, cast

from attrs import Attribute, evolve, field, fields, frozen
from cattrs import Converter
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from . import values
from .delivery.trace import DeliveredTo, OriginalHeader
from .limits import Limits
from .server.tls import ClientCertificates
from .session.verification import Askers

DEFAULT_LISTEN: Final = "tcp:8024:interface=127.0.0.1"
DEFAULT_BACKEND: Final = "maildir:mail/{domain}/{user}"

T = TypeVar("T")
C = TypeVar("C", bound="ListeningConfig")


@frozen
class Problem:
    """
    Something wrong with the key at *path*: (``limits``, ``max-errors``), or (``routes``, 2, ``to``),
    where routes are counted from 1.  *text* is one line that says what was expected.
    """

    path: tuple[str | int, ...]
    text: str

    @property
    def key(self) -> str:
        """
        The key as one looks for it in the file: ``[limits] max-errors``, ``[[routes]] 2: to``.
        """
        match self.path:
            case ("routes" | "listeners" as table, int(number), *rest):
                return ": ".join((f"[[{table}]] {number}", *map(str, rest)))
            case (table, key, *_):
                return f"[{table}] {key}"
            case _:
                return ".".join(map(str, self.path))

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.path else self.text


class BrokenConfig(ValueError):
    """
    There is at least one problem.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


# ── the value ────────────────────────────────────────────────────────────────────────────────────


def key(default: Any, read: Callable[..., Any]) -> Any:
    """
    An attribute that is a key of the file: *read* makes its value from what stands there.
    """
    return field(default=default, metadata={"read": read})


@frozen
class Route:
    """
    Where mail for some addresses goes, and who of them lives here; one of the two may be left out.
    """

    to: tuple[str, ...] = field(metadata={"read": values.patterns})
    backend: str | None = key(None, values.text)
    users: str | None = key(None, values.text)

    @backend.validator
    def _says_something(self, _: object, __: object) -> None:
        if self.backend is None and self.users is None:
            raise ValueError("expected a backend, users, or both")


@frozen
class ListenerTable:
    """
    Endpoints, and what they ask of those who connect there.
    """

    listen: tuple[str, ...] = field(metadata={"read": values.endpoints})
    proxied: bool = key(False, values.flag)
    tls: bool = key(False, values.flag)
    tls_required: bool = key(False, values.flag)
    login_required: bool = key(False, values.flag)

    @property
    def words(self) -> tuple[str, ...]:
        """
        The same as ``--listen`` has it: ``proxied:tcp:24``.
        """
        flags = (self.proxied, self.tls, self.tls_required, self.login_required)
        terms = "".join(f"{term}:" for term, flag in zip(values.TERMS, flags, strict=True) if flag)
        return tuple(terms + each for each in self.listen)


@frozen
class ListeningConfig:
    """
    What may be said about a service that listens, with the defaults for the rest.

    *listen* has the words of *listeners* too, behind its own.
    """

    #: The command that tells all that is wrong with it.
    check: ClassVar[str]

    listen: tuple[str, ...] = key((DEFAULT_LISTEN,), values.endpoints)
    listeners: tuple[ListenerTable, ...] = field(
        default=(), metadata={"read": lambda value, _: tables(value, "listeners", ListenerTable)}
    )
    trusted: tuple[str, ...] = key((), values.networks)
    users: str | None = key(None, values.text)
    hostname: str | None = key(None, values.hostname)
    recipient_delimiter: str = key("+", values.delimiter)
    keep_case: bool = key(False, values.flag)
    spool: str | None = key(None, values.directory)
    json_log: str | None = key(None, values.text)
    extension: tuple[str, ...] = key((), values.texts)
    auth: tuple[str, ...] = key((), values.texts)
    tls_certificate: str | None = key(None, values.text)
    tls_key: str | None = key(None, values.text)
    tls_client_ca: str | None = key(None, values.text)
    tls_client: ClientCertificates | None = field(
        default=None, metadata={"read": values.tls_client}
    )
    limits: Limits = field(factory=Limits)

    def place_of(self, position: int) -> tuple[str | int, ...]:
        """
        The path of the key that the endpoint at *position* of *listen* stands in.
        """
        tables = [
            ("listeners", number, "listen")
            for number, table in enumerate(self.listeners, 1)
            for _ in table.listen
        ]
        position -= len(self.listen) - len(tables)
        return ("listen",) if position < 0 else tables[position]


@frozen
class Config(ListeningConfig):
    """
    All that the operator of ``twistd lmtp`` has said.
    """

    check: ClassVar[str] = "lmtpsvc check"

    backend: str = key(DEFAULT_BACKEND, values.text)
    delivered_to: DeliveredTo = field(default="single", metadata={"read": values.delivered_to})
    original_recipient: OriginalHeader = field(
        default="no", metadata={"read": values.original_recipient}
    )
    dsn: str = key("no", values.dsn)
    vrfy: Askers = field(default="no", metadata={"read": values.vrfy})
    workers: int = key(1, values.workers)
    #: What --backend, routes and directories may name.
    backends: Mapping[str, str] = field(
        factory=dict, metadata={"read": lambda value, _: _named(value)}
    )
    routes: tuple[Route, ...] = field(
        default=(), metadata={"read": lambda value, _: tables(value, "routes", Route)}
    )


#: Names of keys that set a limit.
LIMITS: Final = frozenset(each.metadata["option"] for each in fields(Limits))


def _name(attribute: Attribute[Any]) -> str:
    name: str = attribute.metadata.get("option") or attribute.name.replace("_", "-")
    return name


def _read(attribute: Attribute[Any]) -> Any:
    if "option" in attribute.metadata:
        return values.quantity(attribute.metadata["read"])
    return attribute.metadata.get("read")


def _table(cls: type[T]) -> Callable[[object, object], T]:
    """
    What reads a table into *cls*.
    """
    structure = make_dict_structure_fn(
        cls,
        _converter,
        _cattrs_forbid_extra_keys=True,
        **{
            each.name: override(rename=_name(each), struct_hook=_read(each))
            for each in fields(cls)  # type: ignore[arg-type]  # attrs classes, all of them
        },
    )

    def read(value: object, _: object) -> T:
        if not isinstance(value, Mapping):
            raise values.unexpected(value, "a table")
        return structure(value, cls)

    return read


def _named(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise values.unexpected(value, 'a table such as NAME = "maildir:/srv/mail"')
    return _converter.structure(value, dict[str, str])


def tables(value: object, name: str, cls: type[T]) -> tuple[T, ...]:
    if not isinstance(value, list):
        raise values.unexpected(value, f"tables, each under [[{name}]]")
    return _converter.structure(value, tuple[cls, ...])  # type: ignore[valid-type]  # a variable


_converter = Converter()
_converter.register_structure_hook(str, values.text)
_converter.register_structure_hook(Route, _table(Route))
_converter.register_structure_hook(ListenerTable, _table(ListenerTable))
_converter.register_structure_hook(Limits, _table(Limits))


@cache
def _reader(cls: Hashable) -> Callable[[object, object], Any]:
    return _table(cls)  # type: ignore[arg-type]  # a class is one


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def read_file(path: str) -> dict[str, Any]:
    """
    What the TOML file *path* says; still to be given to `structure`.

    Raises:
        BrokenConfig: It cannot be read, or is no TOML; the problem has no path.
    """
    try:
        with open(path, "rb") as file:
            octets = file.read()
        return tomllib.loads(octets.decode())
    except OSError as error:
        raise BrokenConfig([Problem((), error.strerror or str(error))]) from error
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise BrokenConfig([Problem((), f"line {line}: not UTF-8")]) from error
    except RecursionError as error:
        raise BrokenConfig(
            [Problem((), "brackets within brackets, too deep to be read")]
        ) from error
    except tomllib.TOMLDecodeError as error:
        said = " ".join(str(error).split())
        place = re.fullmatch(r"(.*) \(at (?:end of document|(.*))\)", said)
        if place is not None:
            said = f"{place[2] or f'line {len(octets.splitlines())}, at its end'}: {place[1]}"
        raise BrokenConfig([Problem((), said)]) from error


def structure(said: Mapping[str, Any]) -> Config:
    """
    The configuration that *said*, keys and values as they stand in a file, describes.

    Raises:
        BrokenConfig: With all problems.
    """
    return structure_as(Config, said)


def structure_as(cls: type[C], said: Mapping[str, Any]) -> C:
    """
    The same for any service that listens.
    """
    try:
        config: C = _reader(cast("Hashable", cls))(said, None)
    except (BaseValidationError, ValueError) as error:
        raise BrokenConfig(list(_problems(error, (), cls))) from error
    of_tables = tuple(words for table in config.listeners for words in table.words)
    listen = config.listen if "listen" in said or not of_tables else ()
    return evolve(config, listen=listen + of_tables)


def misbeliefs(config: ListeningConfig) -> Iterator[Problem]:
    """
    The endpoints that could believe nobody, or would believe everybody.
    """
    for position, words in enumerate(config.listen):
        terms, endpoint = values.split_terms(words)
        if "proxied" in terms and not config.trusted:
            yield Problem(
                config.place_of(position),
                f"{words}: believes trusted hosts only, and there are none; say who the proxies are"
                " with trusted",
            )
        if config.trusted and endpoint.startswith("haproxy:"):
            # Twisted's wrapper takes the address from whoever connects: also a trusted one.
            yield Problem(
                config.place_of(position),
                f"{words}: anybody could claim a trusted address there; write"
                f" proxied:{endpoint.removeprefix('haproxy:')}",
            )


def _problems(
    error: BaseException, path: tuple[str | int, ...], top: type[ListeningConfig]
) -> Iterator[Problem]:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            path = (*path, _key_names.get(note.name, note.name.replace("_", "-")))
        elif isinstance(note, IterableValidationNote):
            path = (*path, note.index + 1 if isinstance(note.index, int) else note.index)
    if isinstance(error, BaseValidationError):
        for each in error.exceptions:
            yield from _problems(each, path, top)
    elif isinstance(error, ForbiddenExtraKeysError):
        for key in sorted(error.extra_fields):
            yield Problem((*path, key), _unknown(key, error.cl, top))
    elif isinstance(error, KeyError):
        yield Problem(path, "is missing")
    else:
        yield Problem(path, " ".join(str(error).split()))


def _unknown(key: str, cls: type, top: type[ListeningConfig]) -> str:
    names = [_name(each) for each in fields(cls)]
    if cls is top and key in LIMITS:
        return "unknown key here; it belongs under [limits]"
    if cls is not top and key in map(_name, fields(top)):
        return "unknown key here; it belongs at the top, before the first [table]"
    close = get_close_matches(key, names, 1)
    if close:
        return f"unknown key; did you mean {close[0]!r}?"
    return f"unknown key; expected one of {', '.join(names)}"


_key_names: Final[Mapping[str, str]] = {each.name: _name(each) for each in fields(Limits)}
