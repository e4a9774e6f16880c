"""
``any``: the directory in which everybody is found.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.plugin import IPlugin
from zope.interface import implementer

from ..envelope import Mailbox
from ..interfaces import IDirectory, IDirectoryFactory


@implementer(IDirectory)
class Anyone:
    """
    Takes mail for whoever is asked for.
    """

    def resolve(self, mailbox: Mailbox) -> Sequence[Mailbox]:
        return [mailbox]


@implementer(IPlugin, IDirectoryFactory)
class AnyFactory:
    """
    ``any``.
    """

    name = "any"
    synopsis = "any"
    help = """
        Everybody lives here: each recipient gets a mailbox, which is made when mail comes.

        For trying things out on this machine, and behind an MTA that has refused unknown users
        already.  Anywhere else, whoever can connect can fill the disk with mailboxes.
    """

    def build(self, reactor: object, *words: str, **options: str) -> IDirectory:
        if words or options:
            raise ValueError(f"takes no arguments; expected {self.synopsis}")
        return Anyone()
