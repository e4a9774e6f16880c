"""
TLS on the connecting side: whom we trust, in whose name a certificate must be, and who we are.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any

from OpenSSL import SSL, crypto
from service_identity import VerificationError
from twisted.internet.error import VerifyError
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure

from ..session.terms import TLS


class Encryption:
    """
    How to encrypt with one server.

    *server_name* is the host name, or IP address, in whose name its certificate must be where that
    is looked at.  *authorities* is a file of PEM certificates to trust instead of the system's.
    *certificate* is a PEM file with our own certificate and its key, to be shown if the server asks.

    Raises:
        ValueError: A file cannot be read, or is not what it should be.
    """

    def __init__(
        self,
        server_name: str = "",
        authorities: str | None = None,
        certificate: str | None = None,
    ) -> None:
        self.server_name = server_name
        self._authorities = None if authorities is None else _authorities(authorities)
        self._certificate = None if certificate is None else _own(certificate)

    def named(self, server_name: str) -> Encryption:
        """
        The same for the server *server_name*, if no other name was given.
        """
        if self.server_name or not server_name:
            return self
        other = copy(self)
        other.server_name = server_name
        return other

    def options(self, policy: TLS) -> Any:
        """
        What `startTLS` takes.

        Raises:
            ValueError: The certificate is to be verified, and it is not known in whose name.
        """
        return self._verifying if policy is TLS.MUST else self._trusting

    @cached_property
    def _verifying(self) -> Any:
        if not self.server_name:
            raise ValueError("whose name the server's certificate has must be said here")
        return optionsForClientTLS(
            self.server_name,
            trustRoot=platformTrust() if self._authorities is None else self._authorities,
            clientCertificate=self._certificate,
        )

    @cached_property
    def _trusting(self) -> Any:
        if self._certificate is None:
            return CertificateOptions()
        return self._certificate.options()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error


def _authorities(path: str) -> Any:
    end = b"-----END CERTIFICATE-----"
    parts = [part + end for part in _read(path).split(end)[:-1]]
    try:
        found = [Certificate.loadPEM(part) for part in parts]
    except (crypto.Error, ValueError) as error:
        raise ValueError(f"{path}: not a file of PEM certificates") from error
    if not found:
        raise ValueError(f"{path}: there is no PEM certificate in it")
    return trustRootFromCertificates(found)


def _own(path: str) -> PrivateCertificate:
    octets = _read(path)
    if b"ENCRYPTED" in octets:
        # OpenSSL would ask for it on the terminal, and wait.
        raise ValueError(f"{path}: the key needs a passphrase, and nobody is there to type it")
    try:
        own: PrivateCertificate = PrivateCertificate.loadPEM(octets)
    except VerifyError as error:
        raise ValueError(f"{path}: the key is not that of the certificate") from error
    except (crypto.Error, ValueError) as error:
        raise ValueError(f"{path}: not a PEM certificate with its key") from error
    return own


def handshake_failure(reason: Failure, server_name: str) -> str:
    """
    Why there is no TLS, on one line.
    """
    error = reason.value
    if isinstance(error, VerificationError):
        return f"the certificate is not in the name of {server_name}"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return "; ".join(said for *_, said in error.args[0])
    return reason.getErrorMessage()
