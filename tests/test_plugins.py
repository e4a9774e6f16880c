"""
Plugins out of classes.
"""

from __future__ import annotations

import pytest
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

from lmtpsvc.directory.anyone import Anyone
from lmtpsvc.interfaces import IBackendFactory, IDirectory, IDirectoryFactory
from lmtpsvc.per_recipient import PerRecipientBackend
from lmtpsvc.plugins import BackendPlugin, DirectoryPlugin


class Shelf(PerRecipientBackend):
    """
    Puts mail on a shelf.
    """

    def __init__(self, reactor: object, path: str, depth: str = "1", *, side: str = "left") -> None:
        super().__init__()
        self.words = (path, depth, side)


class TestBackendPlugin:
    def test_provides(self) -> None:
        """
        It is what `twisted.plugin` looks for, and what the command line needs.
        """
        plugin = BackendPlugin("shelf", Shelf)

        assert verifyObject(IPlugin, plugin)
        assert verifyObject(IBackendFactory, plugin)

    def test_texts(self) -> None:
        """
        Synopsis and help come from the class, and can be said better.
        """
        plugin = BackendPlugin("shelf", Shelf)
        other = BackendPlugin("shelf", Shelf, "shelf:WHERE", "Does.")

        assert "shelf:PATH[:depth=1][:side=left]" == plugin.synopsis
        assert "Puts mail on a shelf." == plugin.help
        assert ("shelf:WHERE", "Does.") == (other.synopsis, other.help)

    def test_build(self) -> None:
        """
        Words and options are the arguments.
        """
        made = BackendPlugin("shelf", Shelf).build(object(), "/srv", side="right")

        assert isinstance(made, Shelf)
        assert ("/srv", "1", "right") == made.words

    @pytest.mark.parametrize("words", [[], ["a", "b", "c"]])
    def test_wrong_words(self, words: list[str]) -> None:
        """
        Words that do not fit are the operator's mistake, not a defect.
        """
        with pytest.raises(ValueError, match="expected shelf:PATH"):
            BackendPlugin("shelf", Shelf).build(object(), *words)


def test_directory_plugin() -> None:
    """
    The same for directories.
    """

    def anybody(reactor: object, *words: str) -> IDirectory:
        return Anyone()

    plugin = DirectoryPlugin("anybody", anybody)

    assert verifyObject(IDirectoryFactory, plugin)
    assert ("anybody", "") == (plugin.synopsis, plugin.help)
    assert isinstance(plugin.build(object()), Anyone)
