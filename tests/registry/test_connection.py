"""How a registry is reached: TLS and whom it trusts, plain HTTP where it is allowed, proxies."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import io
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from images import image, patience, sha256
from proxy import Proxy

from workbench.errors import MachineLacks, StepFailed
from workbench.registry.auth import Authorization, challenge
from workbench.registry.credentials import Account, account_for
from workbench.registry.errors import Answer, Passing, refused, retry_after, unreachable
from workbench.registry.http import Session, is_plain
from workbench.registry.push import push
from workbench.registry.reference import parse
from workbench.registry.remote import Remote
from workbench.steps import Emit

BLOB = sha256(b"blob")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key").write_bytes(private)
    return folder / "cert", folder / "key"


class Everything(http.server.BaseHTTPRequestHandler):
    """A stand-in for a registry that has every blob, and for a token server that takes a refresh token."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.say(200, b"")

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        known = form["refresh_token"] == ["long-lived"] and form["grant_type"] == ["refresh_token"]
        self.say(200 if known else 401, json.dumps({"access_token": "short-lived"}).encode())

    def say(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that does not trust this server breaks off."""


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server that speaks TLS, and its certificate."""
    cert, key = certificate(tmp_path)
    server = Quiet(("127.0.0.1", 0), Everything)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}", cert
    server.shutdown()
    server.server_close()
    thread.join()


def with_tls(address: str) -> Remote:
    """The registry there, spoken to as one that is not on this machine."""
    return Remote(parse(f"{address}/a"), session=Session(address, patience(), plain=False))


def test_a_certificate_that_nobody_vouches_for_is_refused(over_tls: tuple[str, Path]) -> None:
    with pytest.raises(MachineLacks, match="is not trusted") as caught:
        with_tls(over_tls[0]).has_blob(BLOB)
    assert "REQUESTS_CA_BUNDLE" in caught.value.cure


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_an_authority_of_the_user_or_the_system_is_trusted(
    over_tls: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, str(over_tls[1]))
    assert with_tls(over_tls[0]).has_blob(BLOB)


@pytest.mark.integration
def test_a_registry_without_tls_is_said_with_the_way_to_allow_it(faulty: Proxy) -> None:
    with pytest.raises(MachineLacks, match="does not answer with TLS") as caught:
        with_tls(faulty.address).has_blob(BLOB)
    assert "WORKBENCH_INSECURE_REGISTRIES" in caught.value.cure


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.1.2.3:80", True),
        ("[::1]:5000", True),
        ("registry.example", False),
        ("localhost.example", False),
        ("10.0.0.1:5000", False),
        ("lab.example:5000", True),
        ("LAB.example:5000", True),
        ("lab.example:5001", False),
        ("whole.example:7", True),
    ],
)
def test_plain_http_is_for_this_machine_and_what_the_user_lists(
    host: str, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_INSECURE_REGISTRIES", "lab.example:5000, whole.example")
    assert is_plain(host) is plain


def test_a_file_of_authorities_that_is_not_there_is_said(
    over_tls: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with pytest.raises(MachineLacks, match="trusted authorities") as caught:
        with_tls(over_tls[0]).has_blob(BLOB)
    assert "REQUESTS_CA_BUNDLE" in caught.value.cure


def test_a_connection_over_tls_that_breaks_off_is_tried_again() -> None:
    found = unreachable(requests.exceptions.SSLError(ssl.SSLEOFError(8, "EOF occurred")), "r.example")
    assert isinstance(found, Passing)


def test_docker_hub_is_known_by_its_name_and_asked_at_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session("docker.io", endpoint=parse("python").endpoint)
    assert (session.host, session.base) == ("docker.io", "https://registry-1.docker.io")
    (tmp_path / "docker").mkdir()
    auths = {"https://index.docker.io/v1/": {"auth": "YWxpOnNlc2FtZQ=="}}
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": auths}))
    assert account_for("docker.io") == Account("ali", "sesame")
    assert "sesame" not in repr(account_for("docker.io"))


@pytest.mark.integration
def test_a_push_goes_through_the_proxy_of_the_environment(
    tmp_path: Path, faulty: Proxy, repository: str, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://{faulty.address}")
    monkeypatch.setenv("WORKBENCH_INSECURE_REGISTRIES", "registry.invalid")
    params = {"to": f"registry.invalid/{repository}:1", "name": "digits", "tag": None}
    assert push(image(tmp_path / "image", repository), params, emit, patience()).values["sent"] == 4
    assert {one.headers["Host"] for one in faulty.seen} == {"registry.invalid"}


@pytest.mark.integration
def test_this_machine_is_not_reached_through_a_proxy(
    faulty: Proxy, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    assert Remote(parse(f"{faulty.address}/{repository}"), patience()).has_blob(BLOB) is False


@pytest.mark.integration
def test_a_proxy_that_does_not_pass_on_is_said(faulty: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@{faulty.address}")
    with pytest.raises(MachineLacks, match=r"proxy on the way to registry\.invalid") as caught:
        Remote(parse("registry.invalid/a"), patience()).has_blob(BLOB)
    assert "secret" not in str(caught.value)


def test_an_identity_token_is_exchanged_for_a_token(
    over_tls: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, cert = over_tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    (tmp_path / "docker").mkdir()
    for token, said in (("long-lived", "Bearer short-lived"), ("ended", None)):
        auths = {address: {"auth": "", "identitytoken": token}}
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": auths}))
        authorization = Session(address, patience(), plain=False).authorization
        asked = f'Bearer realm="https://{address}/token",service="here",scope="repository:a:pull"'
        if said is None:
            with pytest.raises(MachineLacks, match="refuses the account"):
                authorization.renew(None, asked, f"{address}/a")
        else:
            assert authorization.renew(None, asked, f"{address}/a")
            assert authorization.header() == said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Bearer realm="https://a/t",service="b",scope="c:d:pull,push"', "bearer"),
        ('bearer realm="https://a/t"', "bearer"),
        ('Basic realm="x, y", Bearer realm="https://a/t"', "bearer"),
        ('Basic realm="x"', "basic"),
        ("Basic", "basic"),
        ("Negotiate", ""),
        ("", ""),
        ('Bearer realm="', "bearer"),
    ],
)
def test_a_registry_says_what_it_wants(text: str, expected: str) -> None:
    assert challenge(text)[0] == expected


def test_the_scope_of_a_challenge_may_hold_commas() -> None:
    _, found = challenge('Bearer realm="https://a/t",service="b",scope="repository:d:pull,push"')
    assert found == {"realm": "https://a/t", "service": "b", "scope": "repository:d:pull,push"}


@pytest.mark.parametrize(("text", "expected"), [("7", 7.0), ("soon", None), ("", None), ("-1", None), ("9" * 40, 1e9)])
def test_a_wait_is_a_number_or_a_date(text: str, expected: float | None) -> None:
    assert retry_after(text) == (expected if expected != 1e9 else 999_999_999.0)


@pytest.mark.parametrize("status", [300, 400, 401, 403, 404, 405, 408, 413, 418, 429, 500, 502, 503, 504, 507, 599])
def test_nothing_a_registry_says_is_repeated(status: int) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "pw=hunter2"}, {"code": "hunter2"}]}).encode()
    error = refused(Answer(status, {"x": "hunter2"}, body), "r.example/a")
    told = error.error if isinstance(error, Passing) else error
    assert "hunter2" not in str(told)
    assert "r.example" in told.message
    assert told.cure


def told(status: int, code: str, message: str) -> tuple[str, bool]:
    """What is said of a refusal, and whether it is tried again."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    error = refused(Answer(status, {}, body), "r.example/a")
    return str(error.error if isinstance(error, Passing) else error), isinstance(error, Passing)


@pytest.mark.parametrize(
    ("status", "code", "message", "expected", "again"),
    [
        (403, "DENIED", "quota exceeded", "does not allow this with r.example/a (403)", False),
        (403, "DENIED", "access to the namespace 'no space left' is denied", "does not allow this", False),
        (401, "UNAUTHORIZED", "disk quota exceeded", "docker login", False),
        (404, "NAME_UNKNOWN", "no space left", "has no r.example/a", False),
        (404, "MANIFEST_BLOB_UNKNOWN", "blob unknown", "lacks a blob that is needed in r.example/a", False),
        (429, "TOOMANYREQUESTS", "quota exceeded", "allows no more requests", True),
        (503, "TOOMANYREQUESTS", "request quota exceeded", "allows no more requests", True),
        (500, "DENIED", "quota exceeded", "fails (500)", True),
        (500, "UNKNOWN", "write: no space left on device", "disk or quota is full (500)", False),
        (412, "PRECONDITION", "adding 1 MiB will exceed the configured upper limit of 1 MiB", "quota is full", False),
        (413, "", "too large", "takes no blob of this size", False),
        (507, "", "", "disk or quota is full", False),
    ],
)
def test_status_and_code_say_what_happened_and_words_only_where_they_do_not(
    status: int, code: str, message: str, expected: str, again: bool
) -> None:
    said, tried_again = told(status, code, message)
    assert expected in said
    assert tried_again is again


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"errors": 1}', b'{"errors": [1]}', b"\xff", b"NaN"])
def test_an_answer_of_another_form_has_no_codes(body: bytes) -> None:
    assert Answer(400, {}, body).codes == []


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"1", b'{"token": 1}', b'{"token": "x", "expires_in": [1]}', b'{"token": "x y"}']
)
def test_an_answer_of_a_token_server_of_another_form_is_said(body: bytes) -> None:
    authorization = Authorization("r.example", lambda *_: Answer(200, {}, body))
    with pytest.raises(StepFailed, match="no usable token"):
        authorization.renew(None, 'Bearer realm="https://t.example/"', "r.example/a")


def test_a_refusal_that_speaks_of_a_quota_has_that_in_its_cure() -> None:
    assert "ask for room" in told(403, "DENIED", "storage quota exceeded")[0]
    assert "ask for room" not in told(403, "DENIED", "requested access to the resource is denied")[0]


def test_a_host_is_named_with_its_port_and_without_its_account() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    session = Session("127.0.0.1", patience(attempts=1))
    with pytest.raises(MachineLacks, match=f"^{address} refuses connections") as caught:
        session.ask("GET", f"http://ali:sesame@{address}/v2/", "127.0.0.1/a")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("said", ["many", "-1", "1, 1", "9" * 5000])
def test_a_length_that_is_no_number_does_not_count(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    answer = requests.Response()
    answer.headers["Content-Length"] = said
    answer.raw = io.BytesIO(b"blob")
    there = Remote(parse("127.0.0.1:1/team/x"), patience())
    monkeypatch.setattr(there, "download", lambda digest, start: contextlib.nullcontext(answer))
    assert there.read_blob(BLOB, 10) == b"blob"
