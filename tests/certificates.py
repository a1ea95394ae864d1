"""Certificates of servers that clients should trust, and of those that they must not."""

import ssl
import warnings
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """An authority whose own certificate is the file `trusted`, and servers with a certificate of every kind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("authority")
        self.trusted = folder / "trusted.pem"
        self.trusted.write_bytes(_pem(_built(self._name, self._name, self._key, self._key)))

    def server(self, kind: str) -> ssl.SSLContext:
        """A server's side of TLS on 127.0.0.1: right, expired, self-signed, unknown, other host or old TLS."""
        key = ec.generate_private_key(ec.SECP256R1())
        name, signer = self._name, self._key
        if kind == "self-signed":
            name, signer = _named("server"), key
        elif kind == "unknown":
            name, signer = _named("somebody"), ec.generate_private_key(ec.SECP256R1())
        host = "127.0.0.2" if kind == "other host" else "127.0.0.1"
        days = -1 if kind == "expired" else 1
        subject = name if kind == "self-signed" else _named("server")
        path = self._folder / f"{kind}.pem"
        path.write_bytes(_pem(_built(subject, name, key, signer, host=host, days=days), key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        if kind == "old TLS":
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _built(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    host: str | None = None,
    days: int = 1,
) -> x509.Certificate:
    """A certificate that is good, or was, until in so many days; of a host, or of an authority."""
    ends = datetime.now(UTC) + timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(ends - timedelta(days=3)).not_valid_after(ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    if host:
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    written = certificate.public_bytes(serialization.Encoding.PEM)
    if key:
        form = serialization.PrivateFormat.PKCS8
        written += key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return written
