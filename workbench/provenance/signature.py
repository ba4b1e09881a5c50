"""Signatures with local keys, as cosign makes and reads them (cosign's signature specification).

What is signed is a small JSON document that names a manifest by digest. Payload and signature are a layer and its
annotation in an image with the tag ``sha256-<digest>.sig`` beside it; several may sign, each adds a layer. The key is
ECDSA on P-256 and the digest SHA-256, cosign's default. No transparency log is asked or told: cosign verifies these
with ``--insecure-ignore-tlog``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import StepFailed, UsageError
from workbench.provenance.names import CONFIG, DIGEST, MANIFEST, TITLE
from workbench.provenance.referrers import digest_of
from workbench.registry.target import Target
from workbench.store import canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
TYPE = "cosign container image signature"
PASSWORD = "COSIGN_PASSWORD"  # noqa: S105 - the name of the variable
KEY = "WORKBENCH_SIGNING_KEY"
"""The environment variable that names the key a push signs with: a recipe is for everyone, a key is not."""

MAKE_A_KEY = (
    "Make a pair: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes-256-cbc -out image.key; "
    "openssl pkey -in image.key -pubout -out image.pub"
)
_MAX_KEY = 64 << 10
_MAX_PAYLOAD = 256 << 10
_MAX_SIGNATURES = 64
_NO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class Signed:
    """One signature that was found: what it was made over, and the bytes of the signature (DER)."""

    payload: bytes
    signature: bytes


def tag_of(digest: str) -> str:
    """The tag that bears the signatures of the manifest ``digest``."""
    return f"{digest.replace(':', '-')}.sig"


def payload_of(digest: str, identity: str) -> bytes:
    """What is signed: that the manifest ``digest`` is ``identity`` (the repository it was pushed to)."""
    critical = {
        "identity": {"docker-reference": identity},
        "image": {"docker-manifest-digest": digest},
        "type": TYPE,
    }
    return canonical({"critical": critical, "optional": None})


def identity(target: Target, labels: Mapping[str, str]) -> str:
    """What an image is called in its signature: its repository; in a layout folder, whose path is this machine's, its
    title."""
    return labels.get(TITLE, "image") if target.name.startswith("oci:") else target.name


# --- keys


def password() -> str | None:
    """The key's password from the environment; None where there is none. Never an argument: those are seen by all."""
    return os.environ.get(PASSWORD)


def private_key(path: Path, ask: Callable[[], str | None] = password) -> EllipticCurvePrivateKey:
    """The key in the PEM file ``path``; ``ask`` is called for a password if it has one.

    Raises UsageError for a file that is no such key, or a wrong password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _key_file(path)
    if b"ENCRYPTED SIGSTORE PRIVATE KEY" in data or b"ENCRYPTED COSIGN PRIVATE KEY" in data:
        raise UsageError(
            f"{path} is in cosign's own encrypted form, which only cosign reads.",
            f"Sign with cosign sign --key {path}; workbench verify checks it. Or use one key for both: {MAKE_A_KEY}; "
            "cosign import-key-pair --key image.key",
        )
    secret = ask() if b"ENCRYPTED" in data else None
    try:
        key = load_pem_private_key(data, secret.encode() if secret else None)
    except TypeError:
        raise UsageError(f"The key {path} has a password.", f"Put it into the variable {PASSWORD}.") from None
    except (ValueError, UnsupportedAlgorithm):
        if b"ENCRYPTED" in data:
            raise UsageError(f"The key {path} cannot be read with this password.", f"See {PASSWORD}.") from None
        raise UsageError(f"{path} is no private key in PEM.", MAKE_A_KEY) from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise UsageError(f"The key {path} is not an ECDSA key on P-256.", MAKE_A_KEY)
    return key


def public_key(path: Path) -> EllipticCurvePublicKey:
    """The public key in the PEM file ``path`` (``cosign.pub``). Raises UsageError where it is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_key_file(path))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{path} is no public key in PEM.", "Take it from the key: openssl pkey -pubout.") from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise UsageError(f"The key {path} is not an ECDSA key on P-256.", MAKE_A_KEY)
    return key


def _key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY)
    except OSError as error:
        raise UsageError(f"The key {path} cannot be read: {error.strerror}.", MAKE_A_KEY) from None


# --- signing and checking


def sign(target: Target, digest: str, identity: str, key: EllipticCurvePrivateKey, scratch: Path) -> bool:
    """Signs the manifest ``digest`` unless this key has signed it already; whether it did now.

    Raises StepFailed where something else has the signatures' tag.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    if valid(target, digest, key.public_key()):
        return False
    payload = payload_of(digest, identity)
    signature = base64.b64encode(key.sign(payload, ECDSA(hashes.SHA256()))).decode()
    layer = {
        "mediaType": PAYLOAD,
        "digest": digest_of(payload),
        "size": len(payload),
        "annotations": {ANNOTATION: signature},
    }
    layers = [*_layers(target, digest), layer]
    config = _config(layers)
    for data in (payload, config):
        (scratch / "blob").write_bytes(data)
        target.add_blob(scratch / "blob", digest_of(data))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": layers,
    }
    target.add_manifest(canonical(manifest), MANIFEST, tag_of(digest))
    return True


def _config(layers: list[Mapping[str, Any]]) -> bytes:
    """An image's config that says nothing, as registries want one: the layers are no file systems."""
    empty = {"architecture": "", "os": "", "created": _NO_TIME, "config": {}}
    history = [{"created": _NO_TIME}] * len(layers)
    diff_ids = [layer["digest"] for layer in layers]
    return canonical({**empty, "history": history, "rootfs": {"type": "layers", "diff_ids": diff_ids}})


def signatures(target: Target, digest: str) -> Iterator[Signed]:
    """The signatures beside the manifest ``digest``. Raises StepFailed for what is none, or damaged."""
    for layer in _layers(target, digest):
        if layer["mediaType"] == PAYLOAD:
            payload = target.read_blob(str(layer["digest"]), _MAX_PAYLOAD)
            yield Signed(payload, base64.b64decode(layer["annotations"][ANNOTATION]))


def _layers(target: Target, digest: str) -> list[Mapping[str, Any]]:
    tagged = target.resolve(tag_of(digest))
    if tagged is None:
        return []
    data, _ = target.manifest(tagged)
    try:
        layers: list[Mapping[str, Any]] = json.loads(data)["layers"]
        if not isinstance(layers, list):
            raise TypeError(type(layers))
        for layer in layers:
            if layer["mediaType"] == PAYLOAD:
                base64.b64decode(layer["annotations"][ANNOTATION], validate=True)
            if not DIGEST.fullmatch(layer["digest"]):
                raise ValueError(layer["digest"])
    except (RecursionError, ValueError, KeyError, TypeError, binascii.Error) as error:
        raise StepFailed(
            f"{target.name}:{tag_of(digest)} holds no signatures as cosign makes them.", "Remove the tag."
        ) from error
    if len(layers) > _MAX_SIGNATURES:
        raise StepFailed(f"{target.name}:{tag_of(digest)} holds {len(layers)} signatures.", "Remove the tag.")
    return layers


def valid(target: Target, digest: str, key: EllipticCurvePublicKey) -> Signed | None:
    """The first signature by ``key`` that says that it is of the manifest ``digest``; None where there is none."""
    return valid_among(signatures(target, digest), digest, key)


def valid_among(found: Iterable[Signed], digest: str, key: EllipticCurvePublicKey) -> Signed | None:
    """As :func:`valid`, among signatures that were read."""
    return next((one for one in found if _by(key, one) and _says(one.payload, digest)), None)


def _by(key: EllipticCurvePublicKey, signed: Signed) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    try:
        key.verify(signed.signature, signed.payload, ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _says(payload: bytes, digest: str) -> bool:
    """Whether a payload is of this manifest: a true signature of another image is none of this one."""
    try:
        critical = json.loads(payload)["critical"]
        return bool(critical["image"]["docker-manifest-digest"] == digest and critical["type"] == TYPE)
    except (RecursionError, ValueError, KeyError, TypeError):
        return False


def identity_of(payload: bytes) -> str | None:
    """The repository that a payload names; None where it names none."""
    try:
        named = json.loads(payload)["critical"]["identity"]["docker-reference"]
    except (RecursionError, ValueError, KeyError, TypeError):
        return None
    return named if isinstance(named, str) and named else None
