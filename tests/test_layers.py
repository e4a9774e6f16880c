"""
Imports point down: who may know whom, checked in the source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from .rows import each_row

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lmtpsvc"

#: A layer is a folder, or a file of the first level.  It may import itself and what its line names.
MAY_IMPORT: dict[str, set[str]] = {
    "response_codes": set(),
    "replies": {"response_codes"},
    "domains": set(),
    "errors": {"replies", "response_codes"},
    "envelope": set(),
    "limits": {"quantities"},
    "networks": set(),
    "quantities": set(),
    "quota": {"envelope", "quantities"},
    "commitment": set(),
    "headers": set(),
    "in_thread": set(),
    "ownership": {"envelope", "errors", "replies"},
    "interfaces": {"envelope", "response_codes"},
    "per_recipient": {"backends", "commitment", "envelope", "interfaces", "response_codes"},
    "plugins": {"interfaces", "session"},
    "twisted_mail": {
        "backends",
        "delivery",
        "envelope",
        "errors",
        "interfaces",
        "limits",
        "per_recipient",
        "replies",
        "wire",
    },
    "specs": {"interfaces", "session"},
    "testing": {
        "client",
        "commitment",
        "delivery",
        "directory",
        "envelope",
        "errors",
        "headers",
        "interfaces",
        "limits",
        "replies",
        "response_codes",
        "server",
        "session",
    },
    "wire": {"envelope", "replies"},
    "session": {"envelope", "limits", "replies", "response_codes", "wire"},
    "delivery": {
        "commitment",
        "domains",
        "envelope",
        "errors",
        "headers",
        "in_thread",
        "interfaces",
        "limits",
        "ownership",
        "quota",
        "replies",
        "response_codes",
        "wire",
    },
    "auth": {"delivery", "errors", "in_thread", "replies", "session"},
    # Of the backends, directories take the threads.
    "directory": {
        "backends",
        "domains",
        "envelope",
        "errors",
        "in_thread",
        "interfaces",
        "ownership",
        "quantities",
        "quota",
        "replies",
    },
    "backends": {
        "client",
        "commitment",
        "domains",
        "envelope",
        "errors",
        "interfaces",
        "outgoing",
        "quantities",
        "quota",
        "replies",
        "response_codes",
    },
    "outgoing": {"envelope", "replies", "session", "specs", "wire"},
    "client": {"envelope", "outgoing", "replies", "session", "wire"},
    # The queue manager is composed of nearly everything.
    "relay": {
        "backends",
        "client",
        "commitment",
        "config",
        "delivery",
        "domains",
        "envelope",
        "errors",
        "headers",
        "interfaces",
        "networks",
        "outgoing",
        "quantities",
        "replies",
        "session",
        "specs",
        "values",
        "wire",
    },
    "server": {
        "delivery",
        "envelope",
        "errors",
        "interfaces",
        "limits",
        "replies",
        "session",
        "wire",
    },
    "values": {"delivery", "networks", "quantities", "server", "session", "wire"},
    "config": {"delivery", "limits", "server", "session", "values"},
    "wiring": {
        "auth",
        "client",
        "config",
        "delivery",
        "domains",
        "envelope",
        "in_thread",
        "interfaces",
        "networks",
        "relay",
        "replies",
        "server",
        "session",
        "specs",
        "values",
        "wire",
    },
    "options": {"auth", "config", "delivery", "interfaces", "limits", "server", "specs", "wiring"},
    "relay_options": {"backends", "config", "options", "relay", "wiring"},
    "commands": {
        "auth",
        "backends",
        "client",
        "config",
        "delivery",
        "domains",
        "envelope",
        "errors",
        "headers",
        "interfaces",
        "options",
        "relay",
        "relay_options",
        "replies",
        "specs",
        "wire",
        "wiring",
    },
    "pop3": {"backends", "domains"},
    "__main__": {"commands"},
}

#: These do no I/O, and could serve another framework.
NO_TWISTED = {
    "domains",
    "replies",
    "response_codes",
    "errors",
    "envelope",
    "limits",
    "networks",
    "quantities",
    "quota",
    "wire",
    "session",
}

#: They do all the wiring, so that they import everything and nobody imports them.
TOPS = {"tap", "relay_tap"}

#: They name the reactor; all else is handed it.  A test runs on the one that its runner installed.
NAME_THE_REACTOR = {*TOPS, "options", "testing"}


def imported(source: str, package: str) -> Iterator[str]:
    """
    Every name that *source*, a module of *package*, imports; inside functions too.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                above = parents[: len(parents) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                yield f"{base}.{alias.name}"


def layer_of(path: Path) -> str:
    """
    The folder, or file of the first level, that *path* belongs to.
    """
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def package_of(path: Path) -> str:
    """
    The dotted name of the package that *path* is a module of.
    """
    return ".".join(path.relative_to(ROOT).parts[:-1])


def offences(path: Path) -> Iterator[str]:
    """
    What *path* imports and must not.
    """
    layer = layer_of(path)
    for name in imported(path.read_text(encoding="utf-8"), package_of(path)):
        top, _, rest = name.partition(".")
        below = rest.split(".")[0]
        if top == "lmtpsvc":
            if below in TOPS and layer != below:
                yield f"{name}: nobody imports {below}"
            elif layer not in TOPS and below not in MAY_IMPORT.get(layer, set()) | {layer}:
                yield f"{name}: not a layer below {layer}"
        if top in {"twisted", "zope"} and layer in NO_TWISTED:
            yield f"{name}: {layer} knows neither Twisted nor zope"
        if f"{name}.".startswith("twisted.internet.reactor.") and layer not in NAME_THE_REACTOR:
            yield f"{name}: only {' and '.join(sorted(NAME_THE_REACTOR))} name the reactor"


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE) + sorted(
    path for path in PACKAGE.glob("*.py") if path.stem != "__init__"
)


class TestTheTree:
    def test_every_layer_has_a_row(self) -> None:
        """
        Whoever adds a folder or a file of the first level says what it may import.
        """
        assert {layer_of(path) for path in MODULES} - TOPS <= set(MAY_IMPORT)

    def test_the_rows_go_down(self) -> None:
        """
        No two layers import each other, not even by way of others.
        """
        left = dict(MAY_IMPORT)
        while left:
            lowest = {layer for layer, below in left.items() if not below & set(left)}
            assert lowest, f"in a circle: {sorted(left)}"
            for layer in lowest:
                del left[layer]

    @each_row("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
    def test_imports_point_down(self, path: Path) -> None:
        """
        A module imports its own layer and those below, nothing else of ours.
        """
        assert list(offences(path)) == []

    def test_the_package_says_nothing(self) -> None:
        """
        ``import lmtpsvc`` imports nothing: names are imported from where they are defined.
        """
        source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
        assert list(imported(source, "lmtpsvc")) == []

    def test_the_plugin_file_stays_light(self) -> None:
        """
        Every `twistd` of the machine imports it: neither the wiring nor the reactor may come along.
        """
        for path in (ROOT / "twisted" / "plugins").glob("*.py"):
            for name in imported(path.read_text(encoding="utf-8"), "twisted.plugins"):
                tops = [f"lmtpsvc.{top}" for top in TOPS]
                assert not name.startswith((*tops, "twisted.internet")), path


class TestImported:
    @each_row(
        ("source", "names"),
        [
            ("import os.path", ["os.path"]),
            ("from zope import event, schema", ["zope.event", "zope.schema"]),
            ("from . import grammar", ["lmtpsvc.wire.grammar"]),
            ("from .grammar import address", ["lmtpsvc.wire.grammar.address"]),
            ("from .. import replies", ["lmtpsvc.replies"]),
            ("from ..replies import Reply", ["lmtpsvc.replies.Reply"]),
            ("def f():\n    from twisted.internet import reactor", ["twisted.internet.reactor"]),
            ("if 0:\n    import twisted", ["twisted"]),
        ],
    )
    def test_every_form(self, source: str, names: list[str]) -> None:
        """
        Absolute, relative and late imports are all seen.
        """
        assert list(imported(source, "lmtpsvc.wire")) == names
