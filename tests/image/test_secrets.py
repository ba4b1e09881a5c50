"""The secret scan: what has the form of a secret stops the image, and what only looks like one does not.

Every secret here is made on the spot and opens nothing; none stands whole in this file, which scanners read, too.
"""

from __future__ import annotations

import base64
import json
import random
import string
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from image_helpers import CREATED, LAYERS, Emit, Image

from workbench.errors import StepFailed
from workbench.image import secrets
from workbench.image.layers import PIECE, Entry, file_of, write_layer

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Scan = Callable[..., dict[str, Any]]


def drawn(count: int, letters: str = string.ascii_letters + string.digits) -> str:
    """Letters as a token has them, the same in every run."""
    return "".join(random.Random(count).choices(letters, k=count))


def pem(key: Key, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes | None = None) -> bytes:
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, locked)


def token(header: Mapping[str, str], claims: Mapping[str, str]) -> str:
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), drawn(43)])


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def scan(emit: Emit) -> Scan:
    """Scans an image of one layer with these files; the values of the step."""

    def scanned(files: Mapping[str, bytes], config: Mapping[str, Any] | None = None, level: int = 6) -> dict[str, Any]:
        entries: list[Entry] = [file_of(path, data) for path, data in files.items()]
        layer = write_layer("layer", entries, emit.scratch, created=CREATED, level=level)
        path = emit.scratch / "config"
        path.write_text(json.dumps(config or {"config": {"Env": ["PATH=/usr/bin"]}}))
        found = secrets.scan({"config": path, "layer-00": layer.files["blob"]}, {}, emit)
        return dict(found.values)

    return scanned


def refused(scan: Scan, *arguments: Any) -> str:
    """What the scan says when it refuses."""
    with pytest.raises(StepFailed) as caught:
        scan(*arguments)
    assert caught.value.exit_code == 7
    return caught.value.message


TOKENS = {
    "AWS access key": "AKI" + "A" + drawn(16, string.ascii_uppercase + "234567"),
    "Google API key": "AIz" + "a" + drawn(35),
    "Azure storage key": "DefaultEndpointsProtocol=https;Account" + "Key=" + drawn(86) + "==",
    "GitHub token": "gh" + "p_" + drawn(36),
    "GitLab token": "glp" + "at-" + drawn(20),
    "Slack token": "xox" + "b-" + drawn(12, string.digits) + "-" + drawn(24),
    "Hugging Face token": "h" + "f_" + drawn(34),
    "PyPI token": "pyp" + "i-AgEIcHlwaS5vcmc" + drawn(120),
    "npm token": "np" + "m_" + drawn(36),
    "Docker Hub token": "dckr" + "_pat_" + drawn(27),
    "OpenAI key": "sk-" + "proj-" + drawn(74),
    "Stripe key": "sk_" + "live_" + drawn(24),
    "JSON web token": token({"alg": "RS256", "typ": "JWT"}, {"sub": "system:serviceaccount:team:ci"}),
    "login in an address": "https://deploy:" + drawn(14) + "@git.internal/team/model.git",
}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_is_found_by_its_form_in_text_and_in_weights(scan: Scan, kind: str) -> None:
    secret = TOKENS[kind]
    noise = random.Random(1).randbytes(1 << 16)
    for path, data in (
        ("app/settings.py", f'X = "{secret}"\n'.encode()),
        ("models/w.onnx", noise + b"\0" + secret.encode() + b"\0" + noise),
    ):
        said = refused(scan, {path: data})
        assert f"/{path} (layer 1): {kind}" in said
        assert secret[-12:] not in said


@pytest.mark.parametrize(
    "made",
    [
        lambda key: pem(key),
        lambda key: pem(key, PrivateFormat.TraditionalOpenSSL),
        lambda key: pem(key, PrivateFormat.OpenSSH),
        lambda key: pem(key, password=b"locked"),
        lambda key: pem(key, PrivateFormat.TraditionalOpenSSL, b"locked"),
        lambda key: pem(ec.generate_private_key(ec.SECP256R1())),
        lambda key: pem(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.OpenSSH),
        lambda key: json.dumps({"type": "service_account", "private_key": pem(key).decode()}).encode(),
        lambda key: b"\0binary\0" + pem(key) + b"\0",
        lambda key: pem(key).replace(b"\n", b"\r\n"),
    ],
    ids=["pkcs8", "pkcs1", "openssh", "encrypted", "pkcs1-encrypted", "ec", "ed25519", "in-json", "in-binary", "crlf"],
)
def test_a_private_key_is_found_however_it_is_written(
    scan: Scan, rsa_key: rsa.RSAPrivateKey, made: Callable[[Key], bytes]
) -> None:
    assert "/etc/any (layer 1): private key" in refused(scan, {"etc/any": made(rsa_key)})


def test_certificates_public_keys_and_mere_armour_are_no_secrets(scan: Scan, rsa_key: rsa.RSAPrivateKey) -> None:
    public = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    armour = b"-----BEGIN RSA PRIVATE KEY-----"
    documents = armour + b"\n... (the key in base64) ...\n-----END RSA PRIVATE KEY-----\n"
    cut = b"\n".join(pem(rsa_key).split(b"\n")[:6])
    files = {
        "a": public,
        "b": armour,
        "c": documents,
        "d": Path("/etc/ssl/certs/ca-certificates.crt").read_bytes(),
        "e": cut,
    }
    assert scan(files)["files"] == 5


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("root/.netrc", "machine git.internal login ci password s3cr-Zt7\n", "login of a netrc file"),
        ("root/.pgpass", "db.internal:5432:models:ci:s3cr-Zt7\n", "PostgreSQL password"),
        ("root/.docker/config.json", '{"auths": {"r.internal": {"auth": "Y2k6czNjci1adDc="}}}', "registry login"),
        ("root/.npmrc", "_auth = Y2k6czNjci1adDc=\n", "npm login"),
        ("root/.npmrc", "//r.internal/:_authToken=s3cr-Zt7-9\n", "npm login"),
        ("etc/pip.conf", "[global]\nindex-url = https://ci:s3cr-Zt7@pypi.internal/simple\n", "login in an address"),
        ("app/.env", "DEBUG=1\nDATABASE_PASSWORD='s3cr-Zt7'\n", "value of DATABASE_PASSWORD"),
        ("app/.env.production", "export API_TOKEN=s3cr-Zt7\n", "value of API_TOKEN"),
        ("root/.kube/config", "users:\n- user:\n    client-key-data: LS0tLS1CRUdJTiB\n", "Kubernetes login"),
        ("etc/shadow", "root:$y$j9T$Rz7$abcdefgh:19000:0:99999:7:::\n", "password hash"),
        ("run/secrets/db", "s3cr-Zt7\n", "secret handed to a container"),
        ("root/.kaggle/kaggle.json", '{"username":"a","key":"0123456789abcdef0123456789abcdef"}', "Kaggle key"),
    ],
)
def test_files_that_hold_secrets_are_known_by_name_and_judged_by_content(
    scan: Scan, path: str, text: str, kind: str
) -> None:
    said = refused(scan, {path: text.encode()})
    assert f"/{path} (layer 1): {kind}" in said
    assert "s3cr-Zt7" not in said
    assert scan({path: b"\n"})["files"] == 1


def test_what_stands_for_a_secret_is_none(scan: Scan) -> None:
    documents = """
    https://user:password@host/  https://user:pass@example.com  https://{user}:{password}@{host}  ftp://joe:%s@%s
    http://[::1]:8000/a@b  redis://:${REDIS_PASSWORD}@db:6379  //registry/:_authToken=${NPM_TOKEN}  a://b.c:1,d:e@f.g
    AKIAIOSFODNN7EXAMPLE ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx hf_abcdefghijklmnopqrstuvwxyzabcdefgh
    sk-proj- pypi-AgEIcHlwaS5vcmc glpat-your-token-goes-here
    """
    env = "PASSWORD=\nTOKEN=${TOKEN}\nSECRET_KEY=changeme\nSECRET=<secret>\nAPI_KEY_FILE=/run/secrets/x\nTOKEN=/run/t\n"
    shown = token({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890", "name": "John Doe"})
    logins = {"root/.netrc": b"machine a login b password $P\n", "etc/shadow": b"root:*:1::::::\nbin:!:1::::::\n"}
    files = {"doc.md": (documents + shown).encode(), "app/.env": env.encode(), **logins}
    values = scan(files)
    assert (values["files"], values["bytes"]) == (4, sum(map(len, files.values())))


@pytest.mark.parametrize(
    "value",
    [
        "/s3cr3t+Zt7",
        "/s3cr3tZt7",
        "/hunter2x",
        "./s3cr3t+Zt7",
        "~s3cr3tZt7",
        ".s3cr3t-Zt7",
        "/kR9/aQ2mZ81xT/p0Lw",
        "/wJalrXUtnFEMI/K7MDENG/bPxRfiCYzQ8kLmN0pAb",
        "/run/R@9!x#",
    ],
)
def test_a_password_that_begins_like_a_path_is_none(scan: Scan, value: str) -> None:
    said = refused(scan, {"app/.env": f"DB_PASSWORD={value}\n".encode()})
    assert "value of DB_PASSWORD" in said
    assert value not in said


@pytest.mark.parametrize(
    "value",
    [
        "/run/t",
        "/run/secrets/db-9f3aQ7",
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        "/nix/store/0c3a9vdl6k2p8xq1-key/etc/key.pem",
        "/srv/models/key.pem;",
        "/my-project/keys/api_key.txt",
        "/oauth2-proxy/k8s/x509/token",
        "/run/secrets/token)&&true",
        "/etc/ssl/a.pem:/etc/ssl/b.pem",
        "~/.netrc",
        "~ci/tokens/main.txt",
        "./secrets/token.txt",
        "../../keys/server2.key",
        ".env",
        "file:///token",
    ],
)
def test_a_path_to_a_secret_is_none(scan: Scan, value: str) -> None:
    assert scan({"app/.env": f"DB_PASSWORD={value}\n".encode()})["files"] == 1


@pytest.mark.parametrize("before", [PIECE - 20, PIECE - 1, 2 * PIECE - 700])
def test_a_secret_that_lies_across_two_pieces_is_found(scan: Scan, rsa_key: rsa.RSAPrivateKey, before: int) -> None:
    assert "private key" in refused(scan, {"a": b" " * before + pem(rsa_key)})
    assert "GitHub token" in refused(scan, {"a": b" " * before + TOKENS["GitHub token"].encode()})


@pytest.mark.parametrize("level", [0, 6])
def test_stored_and_compressed_layers_are_searched(scan: Scan, level: int) -> None:
    assert "GitHub token" in refused(scan, {"a": TOKENS["GitHub token"].encode()}, None, level)


def test_a_secret_that_a_higher_layer_removes_is_in_the_image_all_the_same(emit: Emit, tmp_path: Path) -> None:
    layers = []
    for index, (path, data) in enumerate((("a/key", TOKENS["GitHub token"].encode()), ("a/.wh.key", b""))):
        scratch = tmp_path / str(index)
        scratch.mkdir()
        layers.append(write_layer("x", [file_of(path, data)], scratch, created=CREATED).files["blob"])
    config = tmp_path / "config"
    config.write_text("{}")
    with pytest.raises(StepFailed, match=r"/a/key \(layer 1\): GitHub token") as caught:
        secrets.scan({"config": config, "layer-00": layers[0], "layer-01": layers[1]}, {}, emit)
    assert "later layer does not help" in caught.value.cure


@pytest.mark.parametrize(
    "config",
    [
        {"config": {"Env": ["DB_PASSWORD=s3cr-Zt7"]}},
        {"config": {"Labels": {"api_token": "s3cr-Zt7"}}},
        {"history": [{"created_by": "RUN |1 TOKEN=s3cr-Zt7 /bin/sh -c pip install x"}]},
        {"history": [{"created_by": "RUN pip install -i https://ci:s3cr-Zt7@pypi.internal/simple x"}]},
        {"config": {"Cmd": ["serve", "--url", "postgres://ci:s3cr-Zt7@db/x"]}},
    ],
    ids=["variable", "label", "argument", "history", "command"],
)
def test_variables_labels_commands_and_history_are_searched(scan: Scan, config: dict[str, Any]) -> None:
    said = refused(scan, {"a": b""}, config)
    assert "the image's config: " in said
    assert "s3cr-Zt7" not in said


def test_what_official_images_have_in_their_variables_is_no_secret(scan: Scan) -> None:
    env = [
        "GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D",
        "PYTHON_SHA256=" + "0123456789abcdef" * 4,
        "LANG=C.UTF-8",
    ]
    assert scan({"a": b""}, {"config": {"Env": env}})["files"] == 1


def test_many_findings_are_counted_and_the_first_named(scan: Scan) -> None:
    said = refused(scan, {f"f{index:02d}": TOKENS["GitHub token"].encode() for index in range(30)})
    assert "/f19 (layer 1)" in said
    assert "/f20 (layer 1)" not in said
    assert "and 10 more" in said


def test_a_layer_that_cannot_be_read_is_not_passed_over(emit: Emit, tmp_path: Path) -> None:
    config, blob = tmp_path / "config", tmp_path / "blob"
    config.write_text("{}")
    blob.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(2000))
    with pytest.raises(StepFailed, match="damaged"):
        secrets.scan({"config": config, "layer-00": blob}, {}, emit)


@pytest.mark.integration
def test_the_shipped_image_has_none_and_gets_none_unseen(image: Image, emit: Emit, tmp_path: Path) -> None:
    """Debian's packages, numpy, onnxruntime and the server: every file is read, and nothing is found."""
    inputs = {"config": image.files["config"]}
    inputs |= {f"layer-{place:02d}": image.files[f"{layer}_blob"] for place, layer in enumerate(LAYERS)}
    values = secrets.scan(inputs, {}, emit).values
    listed = subprocess.run(["find", image.files["root"], "-type", "f"], capture_output=True, text=True, check=True)
    assert values["files"] == len(listed.stdout.splitlines())
    assert values["bytes"] > 100_000_000
