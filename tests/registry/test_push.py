"""Pushing to an OCI layout folder: by content, verified, whole for every reader."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import MachineLacks, StepFailed, UsageError
from workbench.registry.folder import Folder
from workbench.registry.layout import Layout, digest_of
from workbench.registry.push import in_place, push
from workbench.registry.where import open_destination


@dataclass
class Emit:
    scratch: Path

    def progress(self, done: float, total: float, text: str = "") -> None: ...
    def note(self, text: str) -> None: ...
    def sample(self, kind: str, values: Any) -> None: ...


def image(folder: Path, model: bytes = b"model") -> dict[str, Path]:
    """The parts of a small image: config, manifest and blobs."""
    folder.mkdir(parents=True)
    parts = {"config": b'{"architecture":"amd64"}', "layer-00": b"base" * 1000, "layer-01": model}
    paths = {name: folder / name for name in parts}
    for name, data in parts.items():
        paths[name].write_bytes(data)

    def descriptor(name: str, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": digest_of(paths[name]), "size": paths[name].stat().st_size}

    layer = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config", "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor("layer-00", layer), descriptor("layer-01", layer)],
    }
    paths["manifest"] = folder / "manifest"
    paths["manifest"].write_text(json.dumps(manifest))
    return paths


def pushed(parts: dict[str, Path], to: str, name: str = "digits", tag: str | None = None) -> dict[str, Any]:
    return dict(push(parts, {"to": to, "name": name, "tag": tag}, Emit(Path("unused"))).values)


def test_an_image_arrives_whole_and_under_its_tag(tmp_path: Path) -> None:
    parts = image(tmp_path / "image")
    values = pushed(parts, f"oci:{tmp_path}/layout:1.4")
    layout = Layout(tmp_path / "layout")
    assert values["digest"] == digest_of(parts["manifest"]) == layout.tags()["1.4"]["digest"]
    assert values["reference"] == f"oci:{tmp_path}/layout:1.4"
    assert values["sent"] == 4
    assert values["bytes_sent"] == sum(path.stat().st_size for path in parts.values())
    assert all(layout.has(digest_of(path)) for path in parts.values())
    assert json.loads((tmp_path / "layout" / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_only_what_is_missing_is_sent(tmp_path: Path) -> None:
    to = f"oci:{tmp_path}/layout"
    pushed(image(tmp_path / "one"), to)
    again = pushed(image(tmp_path / "again"), to)
    assert [(part["what"], part["state"]) for part in again.pop("parts")] == [
        ("config", "there"),
        ("layer 1 of 2", "there"),
        ("layer 2 of 2", "there"),
    ]
    assert again | {"reference": "", "digest": "", "by_digest": ""} == {
        "reference": "",
        "by_digest": "",
        "digest": "",
        "mounted": 0,
        "sent": 0,
        "skipped": 4,
        "bytes_sent": 0,
    }
    two = pushed(image(tmp_path / "two", b"new"), to)
    assert two["sent"] == 2  # the model and the manifest
    assert [part["state"] for part in two["parts"]] == ["there", "there", "sent"]


def test_the_progress_of_a_push_tells_how_each_blob_stands(tmp_path: Path) -> None:
    texts: list[str] = []

    class Told(Emit):
        def progress(self, done: float, total: float, text: str = "") -> None:
            texts.append(text)

    to = f"oci:{tmp_path}/layout"
    pushed(image(tmp_path / "one"), to)
    push(image(tmp_path / "two", b"new"), {"to": to, "name": "digits", "tag": None}, Told(Path("unused")))

    ended = "config there, layer 1 of 2 there, layer 2 of 2 sent"
    assert texts[-2] == f"pushing to {to}: {ended}"


def test_a_blob_that_rotted_in_the_layout_is_sent_again(tmp_path: Path) -> None:
    parts = image(tmp_path / "image")
    to = f"oci:{tmp_path}/layout"
    pushed(parts, to)
    blob = Layout(tmp_path / "layout").blob(digest_of(parts["layer-00"]))
    blob.write_bytes(b"rot")
    assert pushed(parts, to)["sent"] == 1
    assert blob.read_bytes() == parts["layer-00"].read_bytes()


def test_an_image_that_is_there_whole_under_its_tag_is_in_place(tmp_path: Path) -> None:
    parts = image(tmp_path / "image")
    params = {"to": "oci:layout:1.4", "name": "digits", "tag": None}
    assert in_place(parts, params, tmp_path, digest_of) is None
    values = pushed(parts, f"oci:{tmp_path}/layout:1.4")
    names = {"reference": "oci:layout:1.4", "by_digest": f"oci:layout@{values['digest']}"}
    there = [{**part, "state": "there"} for part in values["parts"]]
    expected = {**values, **names, "sent": 0, "skipped": values["sent"], "bytes_sent": 0, "parts": there}
    assert in_place(parts, params, tmp_path, digest_of) == expected
    assert in_place(parts, {**params, "to": "oci:layout:1.5"}, tmp_path, digest_of) is None
    assert in_place(image(tmp_path / "other", b"other"), params, tmp_path, digest_of) is None


@pytest.mark.parametrize("part", ["config", "layer-00", "manifest"])
def test_an_image_that_lost_a_part_or_its_bytes_is_not_in_place(tmp_path: Path, part: str) -> None:
    parts = image(tmp_path / "image")
    params = {"to": "oci:layout:1.4", "name": "digits", "tag": None}
    pushed(parts, f"oci:{tmp_path}/layout:1.4")
    blob = Layout(tmp_path / "layout").blob(digest_of(parts[part]))
    blob.write_bytes(b"rotten")
    assert in_place(parts, params, tmp_path, digest_of) is None
    blob.unlink()
    assert in_place(parts, params, tmp_path, digest_of) is None


def test_an_image_in_place_in_a_layout_needs_no_http_client(tmp_path: Path) -> None:
    parts = image(tmp_path / "image")
    params = {"to": "oci:layout:1.4", "name": "digits", "tag": None}
    pushed(parts, f"oci:{tmp_path}/layout:1.4")
    program = (
        "import json, pathlib, sys\n"
        "from workbench.registry.layout import digest_of\n"
        "from workbench.registry.push import in_place\n"
        "inputs = {name: pathlib.Path(path) for name, path in json.loads(sys.argv[1]).items()}\n"
        "assert in_place(inputs, json.loads(sys.argv[2]), pathlib.Path(sys.argv[3]), digest_of)\n"
        "print([name for name in ('requests', 'docker', 'ssl', 'tenacity') if name in sys.modules])\n"
    )
    words = [json.dumps({name: str(path) for name, path in parts.items()}), json.dumps(params), str(tmp_path)]
    said = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"


def test_other_tags_and_what_others_wrote_stay(tmp_path: Path) -> None:
    pushed(image(tmp_path / "one"), f"oci:{tmp_path}/layout:a")
    index = tmp_path / "layout" / "index.json"
    document = json.loads(index.read_bytes())
    foreign = {"mediaType": "x", "digest": f"sha256:{'1' * 64}", "size": 1, "annotations": {"vendor": "kept"}}
    index.write_text(
        json.dumps({**document, "manifests": [*document["manifests"], foreign], "annotations": {"k": "v"}})
    )
    pushed(image(tmp_path / "two", b"new"), f"oci:{tmp_path}/layout:b")
    pushed(image(tmp_path / "three", b"newer"), f"oci:{tmp_path}/layout:b")
    document = json.loads(index.read_bytes())
    assert foreign in document["manifests"]
    assert document["annotations"] == {"k": "v"}
    tags = Layout(tmp_path / "layout").tags()
    assert set(tags) == {"a", "b"}
    assert tags["b"]["digest"] == digest_of(tmp_path / "three" / "manifest")


_PROGRAM = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_push import image, pushed
sys.stdin.readline()
number = sys.argv[2]
pushed(image(Path(sys.argv[1]) / f"image{number}", number.encode()), f"oci:{sys.argv[1]}/layout:t{number}")
"""


def test_pushes_at_the_same_time_lose_no_tag(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    commands = [[sys.executable, "-c", _PROGRAM, str(tmp_path), str(number), here] for number in range(4)]
    processes = [subprocess.Popen(command, stdin=-1, text=True) for command in commands]
    for process in processes:
        process.communicate("go\n")
    assert [process.returncode for process in processes] == [0] * 4
    layout = Layout(tmp_path / "layout")
    assert set(layout.tags()) == {"t0", "t1", "t2", "t3"}
    assert all(layout.manifest(tag)["layers"] for tag in layout.tags())


def test_what_a_killed_push_left_is_removed(tmp_path: Path) -> None:
    parts = image(tmp_path / "image")
    pushed(parts, f"oci:{tmp_path}/layout")
    (tmp_path / "layout" / "blobs" / "sha256" / ".new-abc").write_bytes(b"half")
    pushed(parts, f"oci:{tmp_path}/layout")
    names = [path.name for path in (tmp_path / "layout").rglob("*") if path.is_file()]
    assert not any(name.startswith(".") for name in names)


def test_a_part_that_is_not_the_manifests_fails_before_anything_is_written(tmp_path: Path) -> None:
    parts = image(tmp_path / "image")
    parts["layer-01"].write_bytes(b"another")
    with pytest.raises(StepFailed, match="none of the image's parts"):
        pushed(parts, f"oci:{tmp_path}/layout")
    assert not (tmp_path / "layout").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"schemaVersion": 2}', '{"schemaVersion":2,"manifests":[{"digest":"x"}]}'])
def test_an_index_that_is_none_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout" / "index.json").write_text(text)
    with pytest.raises(UsageError, match=r"index\.json"):
        pushed(image(tmp_path / "image"), f"oci:{tmp_path}/layout")
    assert (tmp_path / "layout" / "index.json").read_text() == text


def test_a_layout_of_another_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout" / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(UsageError, match=r"version 1\.0\.0"):
        pushed(image(tmp_path / "image"), f"oci:{tmp_path}/layout")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineLacks, match="file/layout"):
        pushed(image(tmp_path / "image"), f"oci:{tmp_path}/file/layout")


@pytest.mark.parametrize(
    ("to", "tag", "expected"),
    [
        ("oci:.workbench/registry", None, (".workbench/registry", "digits")),
        ("oci:.workbench/registry", "latest", (".workbench/registry", "digits:latest")),
        ("oci:/srv/layout:1.4", "1.4", ("/srv/layout", "1.4")),
        ("oci:a:team/digits:1.4", None, ("a", "team/digits:1.4")),
    ],
)
def test_a_destination_is_a_folder_and_a_tag(to: str, tag: str | None, expected: tuple[str, str]) -> None:
    target, chosen = open_destination(to, "digits", tag)
    assert isinstance(target, Folder)
    assert (str(target.layout.folder), chosen) == expected


@pytest.mark.parametrize("to", ["team/a:1", "docker://x", "oci:", "oci::tag", "oci:a:b c", "oci:a:-x", ""])
def test_other_destinations_are_refused_with_what_is_allowed(to: str) -> None:
    with pytest.raises(UsageError):
        open_destination(to, "digits")


@pytest.mark.integration
def test_an_independent_tool_reads_the_layout(tmp_path: Path) -> None:
    pushed(image(tmp_path / "image"), f"oci:{tmp_path}/layout", tag="1")
    command = ["skopeo", "inspect", "--raw", f"oci:{tmp_path}/layout:digits:1"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == digest_of(tmp_path / "image" / "manifest")
