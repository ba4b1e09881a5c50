"""What lies beside an image is whatever someone put there: every check says something, and none falls over it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kept import Kept, KeyPairs

from workbench.errors import WorkbenchError
from workbench.image.layers import canonical
from workbench.provenance import image, referrers, signature
from workbench.provenance.names import LOCK, MANIFEST, PROVENANCE, RECIPE, SBOM
from workbench.provenance.pull_recipe import pull
from workbench.provenance.verify import Check, verify
from workbench.registry.folder import Folder
from workbench.registry.target import Descriptor

DIGEST = f"sha256:{'1' * 64}"
NESTED = b"[" * 100_000
fuzzed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(DIGEST)
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3)
)


def places(document: Any) -> list[tuple[Any, ...]]:
    """The ways to every value of a document."""
    if isinstance(document, dict):
        return [(), *((key, *rest) for key, value in document.items() for rest in places(value))]
    if isinstance(document, list):
        return [(), *((place, *rest) for place, value in enumerate(document) for rest in places(value))]
    return [()]


@st.composite
def changed(draw: st.DrawFn, document: Any) -> bytes:
    """The document with another value somewhere, or without the one there; or something else altogether."""
    way = draw(st.sampled_from(places(document)))
    if not way:
        return draw(st.binary(max_size=20) | st.just(NESTED) | VALUES.map(lambda value: json.dumps(value).encode()))
    copy = json.loads(json.dumps(document))
    node = copy
    for part in way[:-1]:
        node = node[part]
    if draw(st.booleans()):
        node[way[-1]] = draw(VALUES)
    else:
        del node[way[-1]]
    return json.dumps(copy).encode()


class Beside(Folder):
    """A layout whose answer to one digest or tag is another: what a registry may do."""

    def __init__(self, kept: Kept) -> None:
        assert isinstance(kept.target, Folder)
        super().__init__(kept.target.layout.folder)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}

    def resolve(self, reference: str) -> str | None:
        return reference if reference in self.manifests else super().resolve(reference)

    def read_blob(self, digest: str, limit: int) -> bytes:
        return self.blobs[digest] if digest in self.blobs else super().read_blob(digest, limit)

    def manifest(self, reference: str) -> tuple[bytes, Descriptor]:
        if reference in self.manifests:
            data = self.manifests[reference]
            return data, {"mediaType": MANIFEST, "digest": DIGEST, "size": len(data)}
        return super().manifest(reference)


@pytest.fixture
def to(tmp_path: Path) -> str:
    return f"oci:{tmp_path}/layout:digits"


def sign(kept: Kept, target: Beside, key: Path, payload: bytes) -> None:
    """A true signature over ``payload``, whatever that says."""
    made = signature.private_key(key).sign(payload, ECDSA(hashes.SHA256()))
    digest = f"sha256:{hashlib.sha256(payload).hexdigest()}"
    annotations = {signature.ANNOTATION: base64.b64encode(made).decode()}
    layer = {"mediaType": signature.PAYLOAD, "digest": digest, "size": len(payload), "annotations": annotations}
    target.blobs[digest] = payload
    target.manifests[signature.tag_of(kept.digest)] = canonical({"layers": [layer]})


def of_image(checks: list[Check]) -> Check:
    return next(check for check in checks if check.name == "signature")


@pytest.mark.parametrize("identity", [None, {}, "x", {"docker-reference": 1}, {"docker-reference": ""}])
def test_a_true_signature_that_names_no_repository_is_told(kept: Kept, key_pair: KeyPairs, identity: object) -> None:
    private, public = key_pair()
    critical = json.loads(signature.payload_of(kept.digest, "x"))["critical"] | {"identity": identity}
    target = Beside(kept)
    sign(kept, target, private, canonical({"critical": critical}))
    found = of_image(verify(target, kept.digest, key=public))
    assert (found.state, found.detail) == ("differs", "its payload names no repository")


@fuzzed
@given(st.data())
def test_whatever_is_signed_is_told(whole: Kept, key_pair: KeyPairs, data: st.DataObject) -> None:
    private, public = key_pair()
    target = Beside(whole)
    payload = json.loads(signature.payload_of(whole.digest, "team/digits"))
    sign(whole, target, private, data.draw(changed(payload)))
    found = of_image(verify(target, whole.digest, key=public))
    assert found.state == "differs" or found.detail.startswith("as ")


@fuzzed
@given(st.data())
def test_whatever_bears_the_tag_of_signatures_is_told(whole: Kept, key_pair: KeyPairs, data: st.DataObject) -> None:
    private, public = key_pair()
    target = Beside(whole)
    sign(whole, target, private, signature.payload_of(whole.digest, "team/digits"))
    tag = signature.tag_of(whole.digest)
    target.manifests[tag] = data.draw(changed(json.loads(target.manifests[tag])))
    assert of_image(verify(target, whole.digest, key=public)).state in ("ok", "differs", "missing")


def newest(kept: Kept, kind: str) -> tuple[str, Callable[[str], str]]:
    """The digest of what is attached, and that of one of its files."""
    [found] = referrers.newest(kept.target, kept.digest, kind)

    def digest(media_type: str) -> str:
        descriptor = found.file(media_type)
        assert descriptor is not None
        return str(descriptor["digest"])

    return found.digest, digest


@fuzzed
@given(st.data(), st.sampled_from(["recipe", "sbom", "provenance"]))
def test_whatever_is_attached_is_told(whole: Kept, data: st.DataObject, kind: str) -> None:
    target = Beside(whole)
    digest, _ = newest(whole, kind)
    target.manifests[digest] = data.draw(changed(json.loads(whole.target.manifest(digest)[0])))
    assert verify(target, whole.digest)
    if kind == "recipe":
        pulled(target, whole.digest)


def pulled(target: Beside, digest: str) -> None:
    """Recipe and lock come, or it is said why not."""
    with contextlib.suppress(WorkbenchError):
        assert pull(target, digest).image == digest


@fuzzed
@given(st.data(), st.sampled_from([SBOM, PROVENANCE, RECIPE, LOCK]))
def test_whatever_an_attached_file_holds_is_told(whole: Kept, data: st.DataObject, media_type: str) -> None:
    kind = {SBOM: "sbom", PROVENANCE: "provenance"}.get(media_type, "recipe")
    target, digest = Beside(whole), newest(whole, kind)[1](media_type)
    original = whole.target.read_blob(digest, 1 << 20)
    if kind == "recipe":
        from workbench.document import parse

        document = parse(original.decode(), Path("x")).data
        target.blobs[digest] = data.draw(changed(json.loads(json.dumps(document, default=str))))
    else:
        target.blobs[digest] = data.draw(changed(json.loads(original)))
    assert verify(target, whole.digest)
    pulled(target, whole.digest)


@fuzzed
@given(st.data(), st.booleans())
def test_whatever_manifest_and_config_say_is_told(
    whole: Kept, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, config: bool
) -> None:
    target = Beside(whole)
    own = json.loads(whole.target.manifest(whole.digest)[0])
    if config:
        digest = own["config"]["digest"]
        target.blobs[digest] = data.draw(changed(json.loads(whole.target.read_blob(digest, 1 << 20))))
    else:
        target.manifests[whole.digest] = data.draw(changed(own))
    with contextlib.suppress(WorkbenchError):
        assert verify(target, whole.digest, deep=tmp_path_factory.mktemp("deep"))
    with contextlib.suppress(WorkbenchError):
        assert image.read_config(target, image.find(target, whole.digest)) is not None


def test_more_attachments_than_anybody_makes_are_refused_before_they_are_read(whole: Kept) -> None:
    target = Beside(whole)
    listed = [
        {"mediaType": MANIFEST, "digest": f"sha256:{number:064x}", "size": 1, "artifactType": SBOM}
        for number in range(100)
    ]
    target.referrers = lambda digest, artifact_type=None: listed  # type: ignore[method-assign,misc]
    found = {check.name: check for check in verify(target, whole.digest)}
    assert found["SBOM"].state == "differs"
    assert "100 artifacts" in found["SBOM"].detail
