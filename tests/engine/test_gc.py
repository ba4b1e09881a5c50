"""What ``workbench gc`` takes out of a real engine: what is left of this project's runs, and nothing of others."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import pytest
from digits_image import Image
from engine_helpers import Program

from workbench import gc
from workbench.engine import load
from workbench.store import Store

pytestmark = pytest.mark.integration


@pytest.fixture
def store(in_project: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A project whose runs are of the recipe ``mine``."""
    monkeypatch.setattr(gc, "_names", lambda project: {"mine"})
    store = Store(in_project / ".workbench")
    store.create()
    return store


def result(store: Store, number: int, values: dict[str, object]) -> None:
    path = store.results / "aa" / f"{number:064x}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"files": {}, "values": values, "also_read": {}}))


def removed(store: Store) -> int:
    [row] = gc._engine_images(store.folder.parent, store)
    return int(row["files"])


def test_the_image_of_a_kept_result_stays_and_the_one_before_it_goes(
    client: docker.DockerClient, program: Program, image: Image, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "unused_bases", lambda client: [])  # other tests use theirs at this very moment
    configs = [program(code) for code in ("print(1)", "print(2)", "print(3)")]
    tags = []
    for config, name in zip(configs, ("mine", "mine", "theirs"), strict=True):
        found = load.ensure_loaded(client, config, image.blobs, name)
        tags.append(load.tag_of(name, found))
    result(store, 1, {"config": client.images.get(tags[1]).id, "manifest": "sha256:00"})
    try:
        assert removed(store) == 1
        there = load.loaded_images(client)
        assert [tag in there for tag in tags] == [False, True, True]
    finally:
        load.remove_images(client, tags)


def test_a_base_goes_when_no_image_stands_on_it_and_no_result_is_it(
    client: docker.DockerClient, program: Program, image: Image, store: Store
) -> None:
    """Its layers stay as long as an image has them; what goes is the name of what nothing needs."""
    below = json.loads(program("print(4)").read_bytes())
    below["rootfs"]["diff_ids"] = below["rootfs"]["diff_ids"][:1]
    below["history"] = []
    config = store.folder / "base-config"
    config.write_text(json.dumps(below))
    base = load.tag_of("base", load.ensure_loaded(client, config, image.blobs[:1], "base"))
    above = load.tag_of("other", load.ensure_loaded(client, program("print(5)"), image.blobs, "other"))
    try:
        assert base not in load.unused_bases(client)
        load.remove_images(client, [above])
        assert (base in load.unused_bases(client)) == (not _others_stand_on(client, below["rootfs"]["diff_ids"]))
    finally:
        load.remove_images(client, [base, above])


def _others_stand_on(client: docker.DockerClient, diff_ids: list[str]) -> bool:
    """Other tests use this engine at the same time."""
    names = [tag for tag in load.loaded_images(client) if "/base:" not in tag]
    return any(client.images.get(tag).attrs["RootFS"]["Layers"][:1] == diff_ids for tag in names)
