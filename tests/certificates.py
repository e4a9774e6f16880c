"""
Certificates, made when they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def private_key(path: Path, key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> Path:
    """
    Write *key*, for its owner only.
    """
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password)
            if password
            else serialization.NoEncryption(),
        )
    )
    return path


def self_signed(path: Path, name: str = "localhost") -> Path:
    """
    Write a key, and the certificate for *name* that nobody else has signed, to *path*.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name), _name(name), key, NOW + DAY)
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    made = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    private_key(path, key)
    with path.open("ab") as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
    return path


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(NOW - DAY, end - DAY))
        .not_valid_after(end)
    )


@frozen
class Pair:
    """
    A certificate and its key, each in a file.
    """

    certificate: Path
    key: Path

    @property
    def both(self) -> Path:
        """
        Both in one file, the key first.
        """
        path = self.key.with_suffix(".both")
        path.touch(mode=0o600)
        path.write_bytes(self.key.read_bytes() + self.certificate.read_bytes())
        return path


@frozen
class Authority:
    """
    Signs certificates; files go to *directory*.
    """

    directory: Path
    name: str = "Authority"
    key: ec.EllipticCurvePrivateKey = field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def path(self) -> Path:
        """
        Its own certificate.
        """
        path = self.directory / f"{self.name}.pem"
        if not path.exists():
            builder = _builder(
                _name(self.name), _name(self.name), self.key, NOW + 30 * DAY
            ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            self._write(path, builder)
        return path

    def sign(
        self,
        common: str = "localhost",
        names: Sequence[x509.GeneralName] | None = None,
        end: datetime = NOW + DAY,
    ) -> Pair:
        """
        A certificate with a key of its own; *names* are those of this machine if not given.
        """
        if names is None:
            names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(common), _name(self.name), key, end)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        stem = f"{self.name}-{common}-{len(list(self.directory.iterdir()))}"
        path = self.directory / f"{stem}.pem"
        self._write(path, builder)
        return Pair(path, private_key(self.directory / f"{stem}.key", key))

    def _write(self, path: Path, builder: x509.CertificateBuilder) -> None:
        made = builder.sign(self.key, hashes.SHA256())
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
