"""
Whom to trust, and who we are.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure

from lmtpsvc.outgoing.encryption import Encryption, handshake_failure
from lmtpsvc.session.terms import TLS

from ..certificates import Authority, private_key

JUNK = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


class TestFiles:
    @pytest.mark.parametrize("which", ["authorities", "certificate"])
    @pytest.mark.parametrize("octets", [None, b"", b"nothing of the kind", JUNK])
    def test_mistakes(self, which: str, octets: bytes | None, tmp_path: Path) -> None:
        """
        A file that is missing or something else is told by its name, when it is named.
        """
        path = tmp_path / "file.pem"
        if octets is not None:
            path.write_bytes(octets)

        with pytest.raises(ValueError, match=r"/file\.pem: "):
            Encryption("mx.example.org", **{which: str(path)})

    def test_passphrase(self, tmp_path: Path) -> None:
        """
        Nobody is asked for one: there may be no terminal.
        """
        pair = Authority(tmp_path).sign()
        key = ec.generate_private_key(ec.SECP256R1())
        path = private_key(tmp_path / "locked.pem", key, b"secret")
        path.write_bytes(path.read_bytes() + pair.certificate.read_bytes())

        with pytest.raises(ValueError, match="needs a passphrase"):
            Encryption("mx.example.org", certificate=str(path))

    def test_key_of_another(self, tmp_path: Path) -> None:
        """
        A key that is not that of the certificate is found out when they are read.
        """
        pair = Authority(tmp_path).sign()
        path = private_key(tmp_path / "other.pem", ec.generate_private_key(ec.SECP256R1()))
        path.write_bytes(pair.certificate.read_bytes() + path.read_bytes())

        with pytest.raises(ValueError, match="is not that of the certificate"):
            Encryption("mx.example.org", certificate=str(path))


class TestPolicies:
    def test_must_has_a_name(self) -> None:
        """
        Where the certificate is verified, it has to be known in whose name.
        """
        with pytest.raises(ValueError):
            Encryption().options(TLS.MUST)

    def test_verifying(self) -> None:
        """
        MUST verifies, the others do not.
        """
        encryption = Encryption("mx.example.org")

        must = encryption.options(TLS.MUST)
        assert IOpenSSLClientConnectionCreator.providedBy(must)
        for policy in (TLS.MAY, TLS.ENCRYPT):
            context = encryption.options(policy).getContext()
            assert context.get_verify_mode() == SSL.VERIFY_NONE


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (VerificationError(errors=[]), "the certificate is not in the name of mx.example.org"),
            (
                SSL.Error([("SSL routines", "", "certificate verify failed")]),
                "certificate verify failed",
            ),
            (ConnectionLost("by peer"), "Connection to the other side was lost"),
        ],
    )
    def test_said(self, error: Exception, said: str) -> None:
        """
        Why there is no TLS, in words.
        """
        assert said in handshake_failure(Failure(error), "mx.example.org")
