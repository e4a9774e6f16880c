"""
TLS on the listening side: the certificate and its key, and what a handshake tells.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    trustRootFromCertificates,
)
from zope.interface import implementer

#: What is asked of clients: nothing, a certificate if they have one, or a certificate.
ClientCertificates = Literal["no", "ask", "require"]

_private_key: Final = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL
).search


class UnusableTLS(ValueError):
    """
    The file that the option *key* names is of no use; the text is one line that says why.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


@frozen
class TLSFiles:
    """
    PEM files: the *certificate* with those that lead up to its authority behind it, its *key*, which
    may be in the same file, and the authorities that sign the certificates of clients.
    """

    certificate: str
    key: str | None = None
    client_ca: str | None = None
    clients: ClientCertificates = "no"


@implementer(IOpenSSLServerConnectionCreator)
@frozen(eq=False)
class ServerTLS:
    """
    What handshakes are made with.  *worries* are lines that somebody should read, with the option
    that each is about: it works all the same, or clients will say why not.
    """

    options: Any
    worries: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(cls, files: TLSFiles, now: datetime | None = None) -> ServerTLS:
        """
        From *files*, as they are now.

        Raises:
            UnusableTLS: One of them is of no use.
        """
        own, *chain = _certificates("tls-certificate", files.certificate)
        key_file = files.key or files.certificate
        key = _key(key_file, "tls-certificate" if files.key is None else "tls-key")
        if key.public_key() != own.public_key():
            raise UnusableTLS(
                "tls-certificate" if files.key is None else "tls-key",
                f"{key_file}: not the key of the certificate in {files.certificate}",
            )
        trust = None
        if files.clients != "no":
            assert files.client_ca is not None, "the configuration asks for both"
            found = _certificates("tls-client-ca", files.client_ca)
            trust = trustRootFromCertificates(
                [Certificate(crypto.X509.from_cryptography(each)) for each in found]
            )
        # No compression, no renegotiation to weaker things, ciphers with forward secrecy: Twisted's
        # defaults, and what TLS 1.2 lets them be.
        options = CertificateOptions(
            privateKey=key,
            # pyOpenSSL would rather have these than its own, which Twisted's annotation names.
            certificate=own,  # type: ignore[arg-type]
            extraCertChain=chain,  # type: ignore[arg-type]
            trustRoot=trust,
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        options.requireCertificate = files.clients == "require"
        try:
            context = options.getContext()
        except SSL.Error as error:
            # A key that is too short for OpenSSL's level of security, for example.
            raise UnusableTLS("tls-certificate", f"{files.certificate}: {_said(error)}") from error
        context.set_alpn_select_callback(_no_protocol)
        worries = [
            ("tls-certificate", f"{files.certificate}: {text}")
            for text in _of_dates(own, now or datetime.now(UTC))
        ]
        worries += [
            ("tls-certificate" if files.key is None else "tls-key", f"{key_file}: {text}")
            for text in _of_mode(key_file)
        ]
        return cls(options, tuple(worries))

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """
        One connection; Twisted asks.
        """
        return SSL.Connection(self.options.getContext(), None)


def _no_protocol(_connection: object, _offered: object) -> Any:
    """
    RFC 7301 §3.1: who knows no protocol by its name goes on as if none were offered.  Twisted would
    end the handshake.
    """
    return SSL.NO_OVERLAPPING_PROTOCOLS


def _read(option: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UnusableTLS(option, f"{path}: {error.strerror or error}") from error


def _certificates(option: str, path: str) -> Sequence[x509.Certificate]:
    """
    All that are in a file, at least one.
    """
    octets = _read(option, path)
    try:
        return x509.load_pem_x509_certificates(octets)
    except ValueError as error:
        raise UnusableTLS(option, f"{path}: no certificate in PEM form is there") from error


def _key(path: str, option: str) -> Any:
    found = _private_key(_read(option, path))
    if found is None:
        raise UnusableTLS(option, f"{path}: no private key in PEM form is there")
    try:
        return load_pem_private_key(found[0], None)
    except TypeError as error:
        raise UnusableTLS(
            option, f"{path}: the private key needs a passphrase, and nobody is there to type it"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableTLS(option, f"{path}: the private key is broken") from error


def _of_dates(certificate: x509.Certificate, now: datetime) -> list[str]:
    if now > certificate.not_valid_after_utc:
        return [f"the certificate has expired on {certificate.not_valid_after_utc:%Y-%m-%d}"]
    if now < certificate.not_valid_before_utc:
        return [f"the certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d} on"]
    return []


def _of_mode(path: str) -> list[str]:
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode) and mode & 0o007:
        return [f"everybody may read or change the private key (mode {stat.S_IMODE(mode):o})"]
    return []


def _said(error: SSL.Error) -> str:
    """
    What OpenSSL gives as the reason, a list of (library, function, reason).
    """
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(each[-1]) for each in reasons) or "OpenSSL does not take it"


# ── what a handshake tells ───────────────────────────────────────────────────────────────────────


def handshake_facts(transport: Any) -> tuple[str, str | None]:
    """
    How the connection of *transport* is encrypted, and the name in the certificate of the client if
    it has shown one that was verified.
    """
    connection = transport.getHandle()
    cipher = f"{connection.get_protocol_version_name()} {connection.get_cipher_name()}"
    certificate = transport.getPeerCertificate()
    # An endpoint of somebody else's may ask for certificates and look at none.
    verified = connection.get_context().get_verify_mode() & SSL.VERIFY_PEER
    if certificate is None or not verified:
        return cipher, None
    return cipher, name_in(certificate.to_cryptography())


def name_in(certificate: x509.Certificate) -> str | None:
    """
    Who a certificate says that it is about: its first host name, else its first mail address, else
    its common name (RFC 6125 §6.4.4 has that last).  None if there is none that a log could show.
    """
    names: list[str] = []
    try:
        found = certificate.extensions.get_extension_for_oid(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        ).value
        assert isinstance(found, x509.SubjectAlternativeName)
        names += found.get_values_for_type(x509.DNSName)
        names += found.get_values_for_type(x509.RFC822Name)
    except (x509.ExtensionNotFound, ValueError):
        # ValueError: an extension that is there twice, or that cannot be read.
        pass
    if not names:
        attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [str(each.value) for each in attributes]
    if not names or not names[0].isprintable() or " " in names[0] or len(names[0]) > 255:
        return None
    return names[0]
