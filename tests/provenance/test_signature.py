"""Signatures as cosign makes them: openssl, which knows nothing of workbench, finds them good."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from kept import Kept, KeyPairs, openssl
from small_image import digest_of

from workbench.errors import StepFailed, UsageError
from workbench.provenance import signature
from workbench.provenance.sign import sign_all
from workbench.registry.where import open_target


def signed(kept: Kept, private: Path) -> None:
    list(sign_all(kept.target, kept.digest, private))


def test_openssl_verifies_what_lies_under_cosigns_tag(kept: Kept, key_pair: KeyPairs, tmp_path: Path) -> None:
    private, public = key_pair()
    signed(kept, private)
    manifest = json.loads(kept.target.manifest(f"sha256-{kept.digest[7:]}.sig")[0])
    [layer] = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    payload, der = tmp_path / "payload", tmp_path / "signature"
    payload.write_bytes(kept.target.read_blob(layer["digest"], 1 << 20))
    der.write_bytes(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
    assert "Verified OK" in openssl("dgst", "-sha256", "-verify", str(public), "-signature", str(der), str(payload))
    critical = json.loads(payload.read_bytes())["critical"]
    assert critical["image"] == {"docker-manifest-digest": kept.digest}
    assert critical["type"] == "cosign container image signature"
    named = critical["identity"]["docker-reference"]
    assert named == ("digits" if kept.to.startswith("oci:") else kept.target.name)
    config = json.loads(kept.target.read_blob(manifest["config"]["digest"], 1 << 20))
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]


def test_a_signature_that_openssl_made_is_good(kept: Kept, key_pair: KeyPairs, tmp_path: Path) -> None:
    """As ``cosign attach signature`` stores one that was made elsewhere."""
    private, public = key_pair()
    other, _ = key_pair("other")
    signed(kept, other)
    tag = f"sha256-{kept.digest[7:]}.sig"
    manifest = json.loads(kept.target.manifest(tag)[0])
    payload = kept.target.read_blob(manifest["layers"][0]["digest"], 1 << 20)
    (tmp_path / "payload").write_bytes(payload)
    command = ["openssl", "dgst", "-sha256", "-sign", str(private), str(tmp_path / "payload")]
    made = subprocess.run(command, check=True, capture_output=True).stdout
    manifest["layers"][0]["annotations"][signature.ANNOTATION] = base64.b64encode(made).decode()
    kept.target.add_manifest(json.dumps(manifest).encode(), manifest["mediaType"], tag)
    assert signature.valid(kept.target, kept.digest, signature.public_key(public))


def test_every_signer_adds_to_the_others(kept: Kept, key_pair: KeyPairs) -> None:
    first, second = key_pair("first"), key_pair("second")
    for private, _ in (first, second, first):
        signed(kept, private)
    assert len(list(signature.signatures(kept.target, kept.digest))) == 2
    for _, public in (first, second):
        assert signature.valid(kept.target, kept.digest, signature.public_key(public))


def test_a_true_signature_of_another_image_is_none_of_this_one(kept: Kept, key_pair: KeyPairs) -> None:
    private, public = key_pair()
    other = kept.another("another model")
    signed(other, private)
    data, descriptor = other.target.manifest(signature.tag_of(other.digest))
    manifest = json.loads(data)
    for blob in (manifest["config"], *manifest["layers"]):
        copy = kept.scratch.scratch / "copy"
        copy.write_bytes(other.target.read_blob(blob["digest"], 1 << 20))
        kept.target.add_blob(copy, blob["digest"])
    kept.target.add_manifest(data, str(descriptor["mediaType"]), signature.tag_of(kept.digest))
    assert signature.valid(kept.target, kept.digest, signature.public_key(public)) is None


@pytest.mark.parametrize("to", ["layout"], indirect=True)
@pytest.mark.parametrize(
    "broken",
    [
        {"layers": 1},
        {"layers": [{"mediaType": signature.PAYLOAD, "annotations": {}}]},
        {"layers": [{"mediaType": signature.PAYLOAD, "annotations": {signature.ANNOTATION: "MEUC"}}]},
        {"layers": [{"mediaType": "application/octet-stream", "digest": "sha256:.."}]},
    ],
)
def test_something_else_under_the_tag_is_refused(kept: Kept, key_pair: KeyPairs, broken: dict[str, object]) -> None:
    """In a layout folder: a registry does not take it."""
    private, _ = key_pair()
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", **broken}
    kept.target.add_manifest(json.dumps(manifest).encode(), str(manifest["mediaType"]), signature.tag_of(kept.digest))
    with pytest.raises(StepFailed, match="holds no signatures"):
        signed(kept, private)


@pytest.mark.parametrize("to", ["layout"], indirect=True)
def test_the_signatures_of_a_layouts_only_image_are_no_second_image(kept: Kept, key_pair: KeyPairs) -> None:
    signed(kept, key_pair()[0])
    assert open_target(kept.to.removesuffix(":digits"))[1] == "digits"


# --- keys


def test_the_password_of_a_key_comes_from_the_environment(key_pair: KeyPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    private, _ = key_pair(password="correct")
    monkeypatch.delenv(signature.PASSWORD, raising=False)
    with pytest.raises(UsageError, match="has a password"):
        signature.private_key(private)
    monkeypatch.setenv(signature.PASSWORD, "wrong")
    with pytest.raises(UsageError, match="cannot be read with this password"):
        signature.private_key(private)
    monkeypatch.setenv(signature.PASSWORD, "correct")
    assert signature.private_key(private).curve.name == "secp256r1"


def test_keys_that_cannot_be_used_are_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    with pytest.raises(UsageError, match=r"cannot be read.*openssl genpkey"):
        signature.private_key(path)
    path.write_text("no key")
    with pytest.raises(UsageError, match="no private key in PEM"):
        signature.private_key(path)
    with pytest.raises(UsageError, match="no public key in PEM"):
        signature.public_key(path)
    openssl("genpkey", "-algorithm", "ED25519", "-out", str(path))
    with pytest.raises(UsageError, match="not an ECDSA key on P-256"):
        signature.private_key(path)
    path.write_text(
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
    )
    with pytest.raises(UsageError, match="cosign's own encrypted form"):
        signature.private_key(path)


@pytest.mark.parametrize("to", ["layout"], indirect=True)
@pytest.mark.parametrize("config", [b"{", b"[]"])
def test_an_image_whose_config_is_none_is_not_signed(
    kept: Kept, key_pair: KeyPairs, tmp_path: Path, config: bytes
) -> None:
    private, _ = key_pair()
    data, descriptor = kept.target.manifest(kept.digest)
    (tmp_path / "config").write_bytes(config)
    kept.target.add_blob(tmp_path / "config", digest_of(config))
    manifest = json.loads(data)
    manifest["config"] |= {"digest": digest_of(config), "size": len(config)}
    digest = kept.target.add_manifest(json.dumps(manifest).encode(), str(descriptor["mediaType"]), "other")
    with pytest.raises(StepFailed, match="is none"):
        list(sign_all(kept.target, digest, private))


def test_the_payload_is_the_same_bytes_for_the_same_image() -> None:
    payload = signature.payload_of(digest_of(b"x"), "registry.example.com/team/digits")
    assert payload.startswith(
        b'{"critical":{"identity":{"docker-reference":"registry.example.com/team/digits"},"image":'
    )
