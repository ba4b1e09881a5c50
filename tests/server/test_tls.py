"""The port speaks TLS where there is a certificate, and only with clients that have one where that is asked for."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from authority import Authority
from server_models import affine
from server_process import Process, running
from tritonclient.grpc import service_pb2, service_pb2_grpc

from workbench.server.errors import ServerError
from workbench.server.settings import from_environment
from workbench.server.tls import tls_context


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
