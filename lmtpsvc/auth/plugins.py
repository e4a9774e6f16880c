"""
Our checkers as plugins of `twisted.cred.strcred`.

Every twistd of the machine imports this, so that what is behind it is imported when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from twisted.cred.credentials import ICredentials, IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import Attribute, implementer


class IProvenName(ICredentials):
    """
    A name that somebody else has proven: TLS by a certificate, or the kernel by a uid.
    """

    name = Attribute("The name, a str.")


@implementer(ICheckerFactory, IPlugin)
class ScramFactory:
    authType = "scram"
    authHelp = """
    A file with a line for each user, as PostgreSQL writes them, and as `lmtpsvc passwd FILE USER`
    does: user:SCRAM-SHA-256$iterations:salt$storedkey:serverkey.  It is read again when it has
    changed.  Good for passwords, and for SCRAM-SHA-256.
    """
    argStringFormat = "PATH"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> Any:
        if not argstring:
            raise ValueError("write scram:PATH")
        try:
            return _checkers().ScramChecker.of(argstring)
        except OSError as error:
            raise ValueError(f"{argstring}: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{argstring}: {error}") from error


@implementer(ICheckerFactory, IPlugin)
class ProofFactory:
    authType = "external"
    authHelp = """
    Whoever has shown a certificate that was verified is who it says, and whoever connects to a UNIX
    socket is the user that the process runs as: for AUTH EXTERNAL.  If names are given, with commas
    between, only they may log in.
    """
    argStringFormat = "[NAME,...]"
    credentialInterfaces = (IProvenName,)

    def generateChecker(self, argstring: str) -> Any:
        names = (name.strip() for name in argstring.split(","))
        return _checkers().ProofChecker(frozenset(name for name in names if name))


def _checkers() -> Any:
    return import_module(".checkers", __package__)
