"""The port speaks TLS where there is a certificate, and only with clients that have one where that is asked for."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from server_models import affine
from server_process import Process, running
from tritonclient.grpc import service_pb2, service_pb2_grpc

from workbench.server.errors import ServerError
from workbench.server.settings import from_environment
from workbench.server.tls import tls_context


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
        import ipaddress

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


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    affine(tmp_path / "models" / "affine" / "1" / "model.onnx")
    return tmp_path / "models"


def settings(certificate: tuple[Path, Path], **more: Path) -> dict[str, str]:
    found = {"cert": certificate[0], "key": certificate[1], **more}
    return {f"WORKBENCH_TLS_{name.upper()}": str(path) for name, path in found.items()}


def ask(server: Process, **how: Any) -> Any:
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    return requests.post(
        f"https://127.0.0.1:{server.ready['port']}/v2/models/affine/infer", json=body, timeout=30, **how
    )


def test_who_trusts_its_authority_is_served(models: Path, ours: Authority) -> None:
    server = Process(models, **settings(ours.certificate("server")))
    try:
        assert ask(server, verify=str(ours.path)).json()["outputs"][1]["data"] == [6]
        with pytest.raises(requests.exceptions.SSLError):
            ask(server)
        # A client that speaks no TLS, and one that says nothing, get no answer and do no harm.
        for said in (b"GET /v2 HTTP/1.1\r\nHost: here\r\n\r\n", b""):
            with server.connect() as connection:
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                assert b"HTTP" not in connection.recv(1000)
        assert ask(server, verify=str(ours.path)).status_code == 200
        server.process.terminate()
        code, _, err = server.end()
    finally:
        server.kill()
    assert code == 0
    assert "Traceback" not in err
    assert err.splitlines()[1].endswith(f"at https://127.0.0.1:{server.ready['port']}")


def test_a_client_needs_a_certificate_of_the_authority_where_one_is_named(
    models: Path, ours: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger").certificate("client")
    with running(models, **settings(ours.certificate("server"), client_ca=ours.path)) as server:
        known = tuple(map(str, ours.certificate("client")))
        assert ask(server, verify=str(ours.path), cert=known).status_code == 200
        for other in (None, tuple(map(str, stranger))):
            with pytest.raises(requests.exceptions.ConnectionError):
                ask(server, verify=str(ours.path), cert=other)


def test_grpc_asks_for_the_same_certificates_and_keys(models: Path, ours: Authority, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-enough-letters\n")
    guarded = settings(ours.certificate("server"), client_ca=ours.path)
    more = {"WORKBENCH_GRPC_PORT": "0", "WORKBENCH_API_KEY_FILE": str(keys)}
    certificate, key = (path.read_bytes() for path in ours.certificate("client"))
    known = grpc.ssl_channel_credentials(ours.path.read_bytes(), key, certificate)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": [1, 2, 3]}}
    request = service_pb2.ModelInferRequest(model_name="affine", inputs=[tensor])
    with running(models, **guarded, **more) as server:
        address = f"127.0.0.1:{server.ready['grpc_port']}"

        def code(credentials: grpc.ChannelCredentials, *metadata: tuple[str, str]) -> grpc.StatusCode:
            with grpc.secure_channel(address, credentials) as channel:
                infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
                found: grpc.StatusCode = infer.future(request, metadata=metadata, timeout=30).code()
                return found

        allowed = ("authorization", "Bearer a-key-of-enough-letters")
        assert code(known, allowed) is grpc.StatusCode.OK
        assert code(known) is grpc.StatusCode.UNAUTHENTICATED
        assert code(known, ("authorization", "Bearer another-key-of-letters")) is grpc.StatusCode.UNAUTHENTICATED
        assert code(grpc.ssl_channel_credentials(ours.path.read_bytes()), allowed) is grpc.StatusCode.UNAVAILABLE


def test_old_versions_of_tls_are_refused(ours: Authority) -> None:
    context = tls_context(*ours.certificate("server"), None)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


def test_certificate_and_key_may_stand_in_one_file(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.certificate("server")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert tls_context(both, None, None)


def test_files_that_are_not_usable_are_named(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.certificate("server")
    _, other = ours.certificate("other")
    _, locked = ours.certificate("locked", b"password")
    none, nonsense = tmp_path / "none", tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    for wrong in ((none, key), (certificate, none), (certificate, other), (nonsense, key), (certificate, locked)):
        with pytest.raises(ServerError, match=r"WORKBENCH_TLS_CERT=.* cannot be used: ."):
            tls_context(*wrong, None)
    for authority in (none, nonsense):
        with pytest.raises(ServerError, match=r"WORKBENCH_TLS_CLIENT_CA=.* cannot be used: ."):
            tls_context(certificate, key, authority)


def test_a_server_that_was_meant_to_have_it_does_not_start_without(models: Path, ours: Authority) -> None:
    with pytest.raises(ServerError, match="WORKBENCH_TLS_CERT is not"):
        from_environment({"WORKBENCH_TLS_CLIENT_CA": str(ours.path)})
    code, _, err = Process(models, WORKBENCH_TLS_CERT=str(ours.path)).end()
    assert code == 2
    assert "WORKBENCH_TLS_CERT" in err
    assert err.count("\n") == 1
