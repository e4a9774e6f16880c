"""
From words to backends and directories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import dictionaries, from_regex, lists, text
from zope.interface import implementer

from lmtpsvc import specs
from lmtpsvc.directory.anyone import AnyFactory, Anyone
from lmtpsvc.envelope import Mailbox
from lmtpsvc.interfaces import (
    Capabilities,
    IBackend,
    IBackendFactory,
    IDirectoryFactory,
    IMessage,
)
from lmtpsvc.plugins import BackendPlugin, ExtensionPlugin
from lmtpsvc.session.standard import Pipelining
from lmtpsvc.specs import Spec, parse

from .forks import Forks
from .rows import each_row


@implementer(IBackend)
class Shelf:
    capabilities = Capabilities()

    def __init__(self, **words: object) -> None:
        self.words = words

    def verify(self, mailbox: Mailbox) -> None: ...

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Any]:
        return []


class Shelves:
    """
    Makes shelves the way a stranger would write it: with a signature of its own.
    """

    synopsis = "shelf:PATH[:depth=1]"
    help = "Puts mail on a shelf."

    def __init__(self, name: str = "shelf", make: Callable[..., object] = Shelf) -> None:
        self.name, self.make = name, make

    def build(self, reactor: object, path: str, *, depth: str = "1") -> object:
        return self.make(path=path, depth=depth)


# A stranger's signature may be narrower than that of the interface, which a type checker forbids.
implementer(IBackendFactory)(Shelves)


def raises(error: BaseException) -> Callable[..., object]:
    def make(**words: object) -> object:
        raise error

    return make


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """
    ``install(a, b)``: these are the plugins of the machine, and no others.
    """

    def install(*plugins: object) -> None:
        def get_plugins(interface: Any) -> Iterable[object]:
            return [plugin for plugin in plugins if interface.providedBy(plugin)]

        monkeypatch.setattr(specs, "getPlugins", get_plugins)

    return install


@pytest.fixture
def refused(install: Callable[..., None]) -> Callable[..., str]:
    """
    ``refused(text, a, b)``: what the operator reads who asks for the backend *text*.
    """

    def refused(text: str, *plugins: object) -> str:
        install(*plugins)
        with pytest.raises(ValueError) as caught:
            specs.backend_from_string(object(), text)
        return str(caught.value)

    return refused


class TestParse:
    @each_row(
        ("text", "spec"),
        [
            ("any", Spec("any", [], {})),
            ("any:", Spec("any", [""], {})),
            ("file:/etc/users", Spec("file", ["/etc/users"], {})),
            ("a:b:c", Spec("a", ["b", "c"], {})),
            ("a:b=c", Spec("a", [], {"b": "c"})),
            ("a:b=:c=", Spec("a", [], {"b": "", "c": ""})),
            ("a:b=c=d", Spec("a", [], {"b": "c=d"})),
            ("a:b=c:d", Spec("a", ["d"], {"b": "c"})),
            (r"a:b\:c", Spec("a", ["b:c"], {})),
            (r"a:b\=c", Spec("a", ["b=c"], {})),
            (r"a:b\\c", Spec("a", [r"b\c"], {})),
            (r"a:b\\:c", Spec("a", ["b\\", "c"], {})),
            (r"a:b=\:\=\\", Spec("a", [], {"b": ":=\\"})),
            (r"forward:tcp\:host\:24", Spec("forward", ["tcp:host:24"], {})),
            ("maildir:/srv/{domain}/{user}", Spec("maildir", ["/srv/{domain}/{user}"], {})),
        ],
    )
    def test_words(self, text: str, spec: Spec) -> None:
        """
        Colons part words, an equals sign makes an option, and a backslash takes their meaning away.
        """
        assert spec == parse(text)

    @each_row(
        ("text", "reason"),
        [
            ("", "'' does not start with a name: write NAME or NAME:ARGUMENTS"),
            (":x", "':x' does not start with a name: write NAME or NAME:ARGUMENTS"),
            ("x=y", "'x=y' does not start with a name: write NAME or NAME:ARGUMENTS"),
            ("a:b=1:b=2", "a: b is given twice"),
            ("a:=1", r"a: '' is no option; write '\=' for '=' within a word"),
            ("a:/x=1", r"a: '/x' is no option; write '\=' for '=' within a word"),
            ("a:\\", "a:\\: a backslash stands before ':', '=' or '\\' only; write '\\\\'"),
            (r"a:\d", r"a:\d: a backslash stands before ':', '=' or '\' only; write '\\'"),
        ],
    )
    def test_mistakes(self, text: str, reason: str) -> None:
        """
        What is not of that form is refused with a line that says what to write.
        """
        with pytest.raises(ValueError) as caught:
            parse(text)

        assert reason == str(caught.value)

    @given(
        text(min_size=1),
        lists(text()),
        dictionaries(from_regex(r"[a-z_]+", fullmatch=True), text()),
    )
    def test_everything_can_be_said(
        self, name: str, words: list[str], options: dict[str, str]
    ) -> None:
        """
        With backslashes, a word can be any text.
        """

        def escaped(word: str) -> str:
            return word.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")

        said = [escaped(word) for word in (name, *words)]
        said += [f"{key}={escaped(value)}" for key, value in options.items()]

        assert Spec(name, words, options) == parse(":".join(said))


class TestBuilding:
    def test_words_and_options(self, install: Callable[..., None]) -> None:
        """
        Words and options reach the factory of that name.
        """
        install(Shelves("other"), Shelves())

        shelf = specs.backend_from_string(object(), "shelf:/srv:depth=2")

        assert isinstance(shelf, Shelf)
        assert {"path": "/srv", "depth": "2"} == shelf.words

    def test_directory(self) -> None:
        """
        Directories are found the same way.
        """
        assert isinstance(specs.directory_from_string(object(), "any"), Anyone)

    def test_extension(self, install: Callable[..., None]) -> None:
        """
        So are extensions; one that is none is found out when the service starts.
        """
        install(
            ExtensionPlugin("pipes", lambda _reactor: Pipelining()),
            ExtensionPlugin("dict", lambda _reactor: {}),  # type: ignore[arg-type,return-value]
        )

        assert isinstance(specs.extension_from_string(object(), "pipes"), Pipelining)
        with pytest.raises(ValueError, match="is broken: it made no Extension"):
            specs.extension_from_string(object(), "dict")
        with pytest.raises(ValueError, match="no extension is called 'x': installed: dict, pipes"):
            specs.extension_from_string(object(), "x")

    def test_unknown(self, refused: Callable[..., str]) -> None:
        """
        An unknown name is answered with what is installed, and what may have been meant.
        """
        assert "no backend is called 'x': installed: none" == refused("x")
        assert "no backend is called '/srv': installed: books, shelf" == refused(
            "/srv", Shelves(), Shelves("books")
        )
        assert (
            "no backend is called 'shlef': did you mean 'shelf'? installed: books, shelf"
            == refused("shlef", Shelves(), Shelves("books"))
        )

    def test_two_of_one_name(self, refused: Callable[..., str]) -> None:
        """
        Which of two is meant is for the operator to say.
        """
        said = refused("shelf:x", Shelves(), Shelves())

        assert said.startswith("shelf: more than one backend has this name, uninstall one: ")
        assert 2 == said.count("test_specs.Shelves")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("shelf", "shelf: missing a required argument: 'path'"),
            ("shelf:a:b", "shelf: too many positional arguments"),
            ("shelf:a:dep=1", "shelf: got an unexpected keyword argument 'dep'"),
            ("shelf:a:reactor=1", "shelf: multiple values for argument 'reactor'"),
        ],
    )
    def test_wrong_words(self, refused: Callable[..., str], text: str, reason: str) -> None:
        """
        Words that the factory does not take are answered with those that it does.
        """
        assert f"{reason}; expected shelf:PATH[:depth=1]" == refused(text, Shelves())

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (ValueError("no\nsuch  shelf"), "shelf: no such shelf"),
            (ValueError("shelf:/a: full"), "shelf:/a: full"),
            (ValueError(), "shelf: expected shelf:PATH[:depth=1]"),
            (
                PermissionError(13, "Permission denied", "/a"),
                "shelf: /a: Permission denied; expected shelf:PATH[:depth=1]",
            ),
            (OSError("no disk"), "shelf: no disk; expected shelf:PATH[:depth=1]"),
        ],
    )
    def test_failures(self, refused: Callable[..., str], error: Exception, said: str) -> None:
        """
        What a factory complains about is one line that says who complains.
        """
        assert said == refused("shelf:/a", Shelves(make=raises(error)))

    @pytest.mark.parametrize("error", [TypeError("a\nb"), KeyError("x"), AssertionError()])
    def test_defects(self, refused: Callable[..., str], error: Exception) -> None:
        """
        A defect of a plugin is one line too, and names the plugin.
        """
        said = refused("shelf:/a", Shelves(make=raises(error)))

        assert f"test_specs.Shelves failed with {type(error).__name__}" in said
        assert "\n" not in said

    def test_makes_something_else(self, refused: Callable[..., str]) -> None:
        """
        A plugin that makes no backend is found out when the service starts.
        """
        assert "is broken: it made no IBackend" in refused("shelf:/a", Shelves(make=dict))

    @pytest.mark.parametrize("said", [None, Capabilities("\r")], ids=repr)  # type: ignore[arg-type]  # a mistake
    def test_says_no_capabilities(self, said: Any, refused: Callable[..., str]) -> None:
        """
        So is one that does not say what the service should know about it.
        """

        class Odd(Shelf):
            capabilities = said

        assert "is broken: it says no lmtpsvc.interfaces.Capabilities" in refused(
            "shelf:/a", Shelves(make=Odd)
        )

    def test_whose_it_is(self, refused: Callable[..., str]) -> None:
        """
        A plugin that is a class of somebody's in a line is told by that class.
        """

        class Broken(Shelf):
            def __init__(self, reactor: object) -> None:
                raise TypeError("odd")

        plugin = BackendPlugin("broken", Broken)

        assert "test_specs.TestBuilding.test_whose_it_is.<locals>.Broken failed" in refused(
            "broken", plugin
        )
        assert 2 == refused("broken", plugin, plugin).count("Broken")


class TestFactories:
    def test_sorted(self, install: Callable[..., None]) -> None:
        """
        They come by name, whatever order the file system has.
        """
        install(Shelves("c"), AnyFactory(), Shelves("a"), Shelves("b"))

        assert ["a", "b", "c"] == [factory.name for factory in specs.backend_factories()]
        assert ["any"] == [factory.name for factory in specs.directory_factories()]

    def test_unsound(self, install: Callable[..., None]) -> None:
        """
        A plugin without a name is left out, and the others are there.
        """
        install(Shelves(None), Shelves())  # type: ignore[arg-type]  # a stranger's mistake

        assert ["shelf"] == [factory.name for factory in specs.backend_factories()]

    @pytest.mark.parametrize("name", ["", "she:lf", "shelf=", "shelf\\"])
    def test_name_that_cannot_be_said(self, name: str, install: Callable[..., None]) -> None:
        """
        So is one whose name would be taken for something else.
        """
        install(Shelves(name), Shelves())

        assert ["shelf"] == [factory.name for factory in specs.backend_factories()]

    def test_built_in(self) -> None:
        """
        What comes with the package is there, and says first how it is called.
        """
        installed: list[IBackendFactory | IDirectoryFactory] = []
        installed += specs.backend_factories()
        installed += specs.directory_factories()

        assert {"any", "file", "maildir", "passwd"} <= {factory.name for factory in installed}
        for factory in installed:
            assert factory.synopsis.startswith(factory.name)


def test_describe() -> None:
    """
    The help is wrapped by paragraph, and a table is left as it is.
    """
    one, two = Shelves(), Shelves("other")
    one.help = f"""
        Long {"word " * 20}

            a    b
        and so on
    """

    said = specs.describe([one, two])  # type: ignore[list-item]  # narrower than the interface

    assert said == (
        "shelf:PATH[:depth=1]\n"
        f"    Long{' word' * 14}\n"
        f"    word{' word' * 5}\n"
        "\n"
        "        a    b\n"
        "    and so on\n"
        "\n"
        "other: shelf:PATH[:depth=1]\n"
        "    Puts mail on a shelf.\n"
    )


STRANGER = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from lmtpsvc.directory.anyone import Anyone
from lmtpsvc.interfaces import IDirectoryFactory

@implementer(IPlugin, IDirectoryFactory)
class Strange:
    name, synopsis, help = "strange", "strange:WORD", "Is strange."
    def build(self, reactor, word):
        return Anyone()

strange = Strange()
"""


@pytest.fixture
def python(tmp_path: Path, forks: Forks) -> Callable[[str], str]:
    """
    ``python(source)``: what a new process prints, with a stranger's files beside ours.
    """

    def python(source: str) -> str:
        ended = forks.run(source, directory=tmp_path)
        assert 0 == ended.status, ended.said
        return ended.said

    return python


def test_stranger(tmp_path: Path, python: Callable[[str], str]) -> None:
    """
    A file in twisted/plugins is all it takes to add a directory, and a broken one takes none away.
    """
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "strange_plugin.py").write_text(STRANGER)
    (plugins / "broken_plugin.py").write_text("import nothing_of_that_name")

    said = python(
        "from lmtpsvc.specs import *\n"
        "names = [f.name for f in directory_factories()]\n"
        "made = type(directory_from_string(None, 'strange:x')).__name__\n"
        "print(*names)\n"
        "print(made)"
    )

    *_, names, made = said.splitlines()  # the broken one is told of in front
    assert {"any", "file", "passwd", "strange"} <= set(names.split())
    assert "Anyone" == made


def test_no_reactor(python: Callable[[str], str]) -> None:
    """
    Looking for plugins installs no reactor: which one it is to be is said by an option of twistd.
    """
    said = python(
        "import sys\n"
        "from twisted.plugins import lmtpsvc_plugin\n"
        "from lmtpsvc.specs import *\n"
        "backend_factories(), directory_factories()\n"
        "print('lmtpsvc_plugin' in str(lmtpsvc_plugin), 'twisted.internet.reactor' in sys.modules)"
    )

    assert "True False\n" == said


def test_command() -> None:
    """
    ``twistd lmtp`` is there, and leaves its module unread until it is asked for.
    """
    from twisted.plugins import lmtpsvc_plugin

    assert "lmtp" == lmtpsvc_plugin.lmtp.tapname
    assert "lmtpsvc.tap" == lmtpsvc_plugin.lmtp.module
    for name, plugin in vars(lmtpsvc_plugin).items():
        if name.endswith("_users"):
            assert IDirectoryFactory.providedBy(plugin)
