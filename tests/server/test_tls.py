"""
Certificates as an operator gives them, and what a handshake tells.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from lmtpsvc.server.tls import ServerTLS, TLSFiles, UnusableTLS, name_in

from ..certificates import DAY, NOW, Authority, private_key

BROKEN = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class TestReading:
    def test_two_files(self, authority: Authority) -> None:
        """
        A certificate, and its key in a file of its own, are nothing to worry about.
        """
        pair = authority.sign()

        made = ServerTLS.read(TLSFiles(str(pair.certificate), str(pair.key)))

        assert () == made.worries

    def test_one_file(self, authority: Authority) -> None:
        """
        The key may stand in front of the certificate, or behind it.
        """
        pair = authority.sign()

        assert () == ServerTLS.read(TLSFiles(str(pair.both))).worries

    @pytest.mark.parametrize(
        ("certificate", "key", "option", "said"),
        [
            ("none", "key", "tls-certificate", "No such file or directory"),
            ("text", "key", "tls-certificate", "no certificate in PEM form is there"),
            ("key", "key", "tls-certificate", "no certificate in PEM form is there"),
            ("certificate", "none", "tls-key", "No such file or directory"),
            ("certificate", "text", "tls-key", "no private key in PEM form is there"),
            ("certificate", None, "tls-certificate", "no private key in PEM form is there"),
            ("certificate", "broken", "tls-key", "the private key is broken"),
            ("certificate", "other", "tls-key", "not the key of the certificate in"),
            (
                "certificate",
                "locked",
                "tls-key",
                "the private key needs a passphrase, and nobody is there to type it",
            ),
        ],
    )
    def test_of_no_use(
        self, certificate: str, key: str | None, option: str, said: str, authority: Authority
    ) -> None:
        """
        Each mistake is one line about the option that names the file.
        """
        pair, directory = authority.sign(), authority.directory
        files = {
            "certificate": pair.certificate,
            "key": pair.key,
            "none": directory / "none",
            "other": authority.sign().key,
            "locked": private_key(
                directory / "locked", ec.generate_private_key(ec.SECP256R1()), b"secret"
            ),
        }
        for name, text in (("text", "Hello.\n"), ("broken", BROKEN)):
            files[name] = directory / name
            files[name].write_text(text)

        with pytest.raises(UnusableTLS) as raised:
            ServerTLS.read(TLSFiles(str(files[certificate]), key and str(files[key])))

        named = files[key or certificate] if option == "tls-key" else files[certificate]
        assert option == raised.value.key
        assert str(raised.value).startswith(f"{named}: {said}")
        assert "\n" not in str(raised.value)

    def test_clients_authority(self, authority: Authority, tmp_path: Path) -> None:
        """
        An empty file of authorities is told by the name of its option.
        """
        pair = authority.sign()
        (tmp_path / "empty").touch()

        with pytest.raises(UnusableTLS) as raised:
            ServerTLS.read(
                TLSFiles(str(pair.certificate), str(pair.key), str(tmp_path / "empty"), "ask")
            )

        assert "tls-client-ca" == raised.value.key

    @pytest.mark.parametrize(
        ("days", "said"),
        [
            (+2, "the certificate has expired on {end:%Y-%m-%d}"),
            (-2, "the certificate is valid from {start:%Y-%m-%d} on"),
        ],
    )
    def test_dates(self, days: int, said: str, authority: Authority) -> None:
        """
        Clients will not take it, but that is no reason not to take their mail.
        """
        pair = authority.sign()

        made = ServerTLS.read(TLSFiles(str(pair.certificate), str(pair.key)), NOW + days * DAY)

        text = said.format(end=NOW + DAY, start=NOW - DAY)
        assert (("tls-certificate", f"{pair.certificate}: {text}"),) == made.worries

    def test_open_to_everybody(self, authority: Authority) -> None:
        """
        A key that everybody may read is worth a warning, and no more.
        """
        pair = authority.sign()
        pair.key.chmod(0o644)

        [(option, text)] = ServerTLS.read(TLSFiles(str(pair.certificate), str(pair.key))).worries

        assert "tls-key" == option
        assert text.endswith("everybody may read or change the private key (mode 644)")


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_protocol_by_name(version: int, authority: Authority) -> None:
    """
    A client that names the protocol it speaks (ALPN) is welcome like any other.
    """
    pair = authority.sign()
    made = ServerTLS.read(TLSFiles(str(pair.certificate), str(pair.key)))
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(version)
    context.set_alpn_protos([b"smtp", b"lmtp"])
    client, server = SSL.Connection(context, None), made.serverConnectionForTLS(None)
    client.set_connect_state()
    server.set_accept_state()
    for _ in range(2):
        for side, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                side.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(side.bio_read(16384))
    server.do_handshake()
    client.do_handshake()

    assert b"" == client.get_alpn_proto_negotiated()


@pytest.mark.parametrize(
    ("common", "names", "name"),
    [
        ("mta", [], "mta"),
        (
            "mta",
            [x509.DNSName("mta.example.org"), x509.DNSName("b.example.org")],
            "mta.example.org",
        ),
        ("mta", [x509.RFC822Name("a@example.org"), x509.DNSName("b.example.org")], "b.example.org"),
        ("mta", [x509.RFC822Name("ann@example.org")], "ann@example.org"),
        ("two words", [], None),
        ("line\nfeed", [], None),
    ],
)
def test_name(
    common: str, names: list[x509.GeneralName], name: str | None, authority: Authority
) -> None:
    """
    A host name counts more than a mail address, and that more than a common name, which may hold
    anything.
    """
    pair = authority.sign(common, names)

    assert name == name_in(x509.load_pem_x509_certificate(pair.certificate.read_bytes()))
