"""Certificates for tests of TLS, made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Signs certificates, and keeps all of them in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {folder.name}")])
        self.path = self._write("ca", self._signed("ca", self._key, authority=True), None)

    def certificate(self, name: str, password: bytes | None = None) -> tuple[Path, Path]:
        """A certificate of ``name`` for 127.0.0.1, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        cipher: Any = (
            serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
        )
        content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
        return self._write(name, self._signed(name, key), content), self._folder / f"{name}.key"

    def _write(self, name: str, certificate: x509.Certificate, key: bytes | None) -> Path:
        path = self._folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        if key is not None:
            path.with_suffix(".key").write_bytes(key)
        return path

    def _signed(self, name: str, key: ec.EllipticCurvePrivateKey, authority: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = self._name if authority else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: Any = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(issued_by, critical=False)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
