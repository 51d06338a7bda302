"""Certificates made by the test, so that nothing here expires or needs a network."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclasses.dataclass
class Pair:
    """PEM files of a certificate and its private key."""

    cert: pathlib.Path
    key: pathlib.Path

    def server(self, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """For a server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        context.set_alpn_protocols(list(alpn))
        return context


class Authority:
    """One that signs, and that clients may be told to trust."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.private = ec.generate_private_key(ec.SECP256R1())
        constraint = x509.BasicConstraints(ca=True, path_length=0)
        cert = self._builder(self.name, self.private).add_extension(constraint, critical=True).sign(self.private, hashes.SHA256())
        self.file = folder / f"{name}.ca.pem"
        self.file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, private: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        fresh = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(private.public_key())
        return fresh.serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now + DAY)

    def issue(self, *names: str, expired: bool = False) -> Pair:
        """A server's certificate for these host names and addresses."""
        private = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), private)
        if expired:
            now = datetime.datetime.now(datetime.timezone.utc)
            fresh = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(self.name).public_key(private.public_key())
            builder = fresh.serial_number(x509.random_serial_number()).not_valid_before(now - 3 * DAY).not_valid_after(now - DAY)
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative(name) for name in names]), critical=False)
        cert = builder.sign(self.private, hashes.SHA256())
        stem = f"{names[0]}-{'expired' if expired else 'good'}-{cert.serial_number:x}"
        pair = Pair(self.folder / f"{stem}.pem", self.folder / f"{stem}.key")
        pair.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        pair.key.chmod(0o600)
        return pair

    def client(self, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """For a client that trusts this authority and nobody else."""
        context = ssl.create_default_context(cafile=str(self.file))
        context.set_alpn_protocols(list(alpn))
        return context


def alternative(name: str) -> x509.GeneralName:
    """A host name or an address, as certificates write it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
