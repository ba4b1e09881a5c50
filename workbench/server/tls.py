"""TLS for the server's port: WORKBENCH_TLS_CERT, WORKBENCH_TLS_KEY and WORKBENCH_TLS_CLIENT_CA."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from workbench.server.errors import ServerError


@dataclass(frozen=True)
class Pem:
    """What the files hold, as gRPC takes it: the chain, its key, and whose clients are let in."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None


def read_pem(certificate: Path, key: Path | None, client_ca: Path | None) -> Pem:
    """The content of files that :func:`tls_context` has found usable."""
    chain = certificate.read_bytes()
    return Pem(chain, chain if key is None else key.read_bytes(), None if client_ca is None else client_ca.read_bytes())


def tls_context(certificate: Path, key: Path | None, client_ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 and later with the chain in ``certificate``, whose key may stand in the same file (PEM).

    ``client_ca``: only clients with a certificate that one of these authorities signed are let in. ServerError where
    a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A password is given so that nobody is asked for one: keys that need it are refused.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one
        raise ServerError(
            f"WORKBENCH_TLS_CERT={str(certificate)!r} with WORKBENCH_TLS_KEY={str(key or '')!r} cannot be used: "
            f"{_why(error)}.",
            "Give the certificate (then those that it depends on) and its key without a password, as PEM.",
        ) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise ServerError(
                f"WORKBENCH_TLS_CLIENT_CA={str(client_ca)!r} cannot be used: {_why(error)}.",
                "Give the certificates of the authorities that sign clients' certificates, as PEM.",
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no PEM file of that kind"
    return error.strerror or str(error)
