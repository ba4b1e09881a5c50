"""The report of an image: whose each file is, what is wasted or there twice, and what changed against the last one."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from image_helpers import LAYERS, Image
from support import git, workbench

from workbench import events
from workbench.image import contents
from workbench.image.report import report
from workbench.store import Store, digest_of

Content = Mapping[str, bytes]


def layer(folder: Path, name: str, files: Content) -> Path:
    """A layer as an engine writes one, plain and with paths that begin with ``./``."""
    path = folder / f"{name}.tar"
    with tarfile.open(path, "w") as archive:
        for inside, data in files.items():
            member = tarfile.TarInfo(f"./{inside}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def read(folder: Path, *layers: Content) -> list[contents.Layer]:
    named = [(f"layer{index}", files) for index, files in enumerate(layers)]
    return [contents.read_layer(name, layer(folder, name, files)) for name, files in named]


def test_files_belong_to_the_wheel_or_package_that_claims_them(tmp_path: Path) -> None:
    (found,) = read(
        tmp_path,
        {
            "opt/wheels/one/a.py": b"12345",
            "opt/wheels/one.libs/b.so": b"123",
            "opt/wheels/one-1.0.dist-info/RECORD": b"one/a.py,,5\none.libs/b.so,,\none-1.0.dist-info/RECORD,,\n",
            "usr/lib/libtwo.so": b"1234567",
            "usr/bin/three": b"1",
            "var/lib/dpkg/info/two:amd64.md5sums": b"0" * 32 + b"  lib/libtwo.so\n",
            "var/lib/dpkg/info/three.list": b"/.\n/usr\n/usr/bin/three\n",
            "app/workbench/server/x.py": b"12",
            "top": b"123",
        },
    )
    rows = {row["what"]: (row["files"], row["bytes"]) for row in contents.holds(found)}
    assert rows["one 1.0"][0] == 3
    assert rows["Debian two"][0] == 2
    assert rows["Debian three"][0] == 2
    assert rows["/app/workbench"] == (1, 2)
    assert rows["/"] == (1, 3)
    assert sum(files for files, _ in rows.values()) == len(found.files)


def test_what_a_higher_layer_replaces_removes_or_hides_is_wasted(tmp_path: Path) -> None:
    layers = read(
        tmp_path,
        {"a": b"1", "b": b"22", "c/d": b"333", "e/f": b"4444", "g": b"55555"},
        {"a": b"other", ".wh.b": b"", "c/.wh..wh..opq": b"", "c/new": b"x"},
        {".wh.e": b""},
    )
    rows = [(row["path"], row["layer"], row["by"], row["bytes"]) for row in contents.wasted(layers)]
    assert rows == [
        ("/e/f", "layer0", "layer2", 4),
        ("/c/d", "layer0", "layer1", 3),
        ("/b", "layer0", "layer1", 2),
        ("/a", "layer0", "layer1", 1),
    ]
    assert sorted(path for path, _, _ in contents.visible(layers)) == ["/a", "/c/new", "/g"]


def test_content_at_several_paths_counts_once_too_often_for_each(tmp_path: Path) -> None:
    layers = read(
        tmp_path, {"a": b"same", "b": b"same", "empty": b"", "gone": b"same"}, {"c": b"same", ".wh.gone": b""}
    )
    assert contents.duplicates(contents.visible(layers)) == [{"bytes": 8, "paths": ["/a", "/b", "/c"]}]


def test_changes_tell_files_of_the_same_size_apart_by_content(tmp_path: Path) -> None:
    before, now = read(tmp_path, {"a": b"1", "b": b"22", "c": b"333"}, {"a": b"1", "b": b"2x", "d": b"4444"})
    assert contents.changes(before.files, now.files) == [
        {"path": "/b", "change": "changed", "bytes": 0},
        {"path": "/c", "change": "removed", "bytes": -3},
        {"path": "/d", "change": "added", "bytes": 4},
    ]


def made(project: Path, run: str, layers: Mapping[str, Content]) -> dict[str, Any]:
    """A run folder that says these layers were made, with their blobs in the store; its image's values."""
    store = Store(project / ".workbench")
    store.create()
    facts = []
    for name, files in layers.items():
        blob = layer(project, name, files)
        digest, size = digest_of(blob), blob.stat().st_size
        store.path(digest).parent.mkdir(exist_ok=True)
        blob.replace(store.path(digest))
        facts.append({"name": name, "diff_id": digest, "digest": digest, "size": size, "uncompressed": 9, "files": 1})
    config = "sha256:" + run[-1] * 64
    values = {"config": config, "manifest": config, "size": 5, "uncompressed": 9, "layers": facts}
    folder = project / ".workbench" / "runs" / run
    folder.mkdir(parents=True)
    recipe = str(project / "recipes" / "digits.yaml")
    (folder / "request.json").write_text(json.dumps({"project": str(project), "recipe": recipe, "command": []}))
    log = events.EventLog(folder / "events.jsonl")
    log.write(
        events.StepFinished(step="image", key="", reused=False, files={}, values=values, ingredients={}, seconds=0)
    )
    log.close()
    return values


def test_an_image_is_compared_with_the_last_other_one(project: Path) -> None:
    made(project, "20260101-1", {"base": {"a": b"1"}, "model": {"m": b"1", "n": b"1"}})
    made(project, "20260102-2", {"base": {"a": b"1"}, "model": {"m": b"22"}})
    made(project, "20260103-2", {"base": {"a": b"1"}, "model": {"m": b"22"}})
    found = report(project / "recipes" / "digits.yaml")
    assert found["run"] == "run 20260103-2"
    assert found["changes"]["against"] == "run 20260101-1"
    base, model = found["changes"]["layers"]
    assert base == {"layer": "base", "change": "same"}
    assert {key: model[key] for key in ("added", "removed", "changed", "bytes")} == {
        "added": 0,
        "removed": 1,
        "changed": 1,
        "bytes": 0,
    }


def test_an_image_whose_layers_are_gone_is_compared_by_their_digests(project: Path) -> None:
    old = made(project, "20260101-1", {"base": {"a": b"1"}, "model": {"m": b"1"}})
    made(project, "20260102-2", {"base": {"a": b"1"}, "more": {"b": b"1"}, "model": {"m": b"22"}})
    Store(project / ".workbench").path(old["layers"][1]["digest"]).unlink()
    layers = report(project / "recipes" / "digits.yaml")["changes"]["layers"]
    assert layers == [
        {"layer": "base", "change": "same"},
        {"layer": "model", "change": "changed"},
        {"layer": "more", "change": "added"},
    ]


def test_without_an_earlier_run_the_committed_lock_is_what_was_before(project: Path) -> None:
    lock = project / "recipes" / "digits.lock.yaml"
    lock.write_text("artifacts:\n  image:\n    config: sha256:0\n    layers: {base: sha256:1}\n")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "lock")
    made(project, "20260101-1", {"base": {"a": b"1"}})
    changes = report(project / "recipes" / "digits.yaml")["changes"]
    assert changes["against"] == "the lock in HEAD"
    assert changes["layers"] == [{"layer": "base", "change": "changed"}]


def test_the_first_image_has_nothing_to_be_compared_with(project: Path) -> None:
    made(project, "20260101-1", {"base": {"a": b"1"}})
    assert report(project / "recipes" / "digits.yaml")["changes"] is None


def test_the_command_prints_tables_and_json(project: Path) -> None:
    made(project, "20260101-1", {"base": {"a": b"1"}, "model": {"gone": b"1"}})
    made(project, "20260102-2", {"base": {"a": b"1", "b": b"1"}, "model": {"a": b"333", "c\x1b[31m": b"4"}})
    done = workbench(project, "image", "recipes/digits.yaml")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    for expected in ("Image sha256:222222222222 of run 20260102-2", "In layer model", "Biggest files", "base by model"):
        assert expected in done.stdout
    assert "Changed against run 20260101-1" in done.stdout
    found = json.loads(workbench(project, "image", "recipes/digits.yaml", "--json", "--files", "1").stdout)
    assert found["wasted"] == {
        "bytes": 1,
        "files": 1,
        "first": [{"path": "/a", "layer": "base", "by": "model", "bytes": 1}],
    }
    assert len(found["biggest"]) == 1


def test_a_recipe_without_an_image_yet_and_layers_that_gc_took_name_the_cure(project: Path) -> None:
    done = workbench(project, "image", "recipes/digits.yaml")
    assert done.returncode == 2
    assert "workbench run" in done.stderr
    values = made(project, "20260101-1", {"base": {"a": b"1"}})
    Store(project / ".workbench").path(values["layers"][0]["digest"]).unlink()
    done = workbench(project, "image", "recipes/digits.yaml")
    assert done.returncode == 2
    assert "no longer in the store" in done.stderr


@pytest.mark.integration
def test_every_byte_of_the_shipped_image_has_an_owner(image: Image) -> None:
    """Debian's packages and the wheels claim all but what assembling the base itself writes."""
    layers = [contents.read_layer(name, image.files[f"{name}_blob"]) for name in LAYERS]
    rows = {name: contents.holds(found) for name, found in zip(LAYERS, layers, strict=True)}
    assert all(" " in row["what"] for row in rows["wheels"])
    unclaimed = sum(row["bytes"] for row in rows["base"] if not row["what"].startswith("Debian "))
    assert unclaimed < 0.03 * sum(row["bytes"] for row in rows["base"])
    assert contents.wasted(layers) == []
    assert max(row["bytes"] for row in contents.duplicates(contents.visible(layers))) < 100_000
