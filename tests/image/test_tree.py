"""The file tree of an image: layers over each other as a container sees them, and nothing hostile taken for one."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from workbench.errors import StepFailed
from workbench.image.layers import file_of, write_layer
from workbench.image.tree import Node, as_json, differences, tree_digest, tree_entries

DIR, LINK, SYM = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def layers(folder: Path, *contents: list[tuple[tarfile.TarInfo, bytes]]) -> list[Path]:
    blobs = []
    for number, members in enumerate(contents):
        blobs.append(folder / f"layer{number}")
        with tarfile.open(blobs[-1], "w:gz" if number % 2 else "w", format=tarfile.PAX_FORMAT) as archive:
            for info, data in members:
                archive.addfile(info, io.BytesIO(data))
    return blobs


def tree(folder: Path, *contents: list[tuple[tarfile.TarInfo, bytes]]) -> dict[str, Node]:
    return tree_entries(layers(folder, *contents))


def test_an_upper_file_replaces_a_lower_one_and_folders_merge(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        [entry("a", kind=DIR, mode=0o755), entry("a/x", b"old"), entry("a/y", b"stays")],
        [entry("a", kind=DIR, mode=0o700), entry("a/x", b"new")],
    )
    assert set(found) == {"a", "a/x", "a/y"}
    assert found["a"].mode == 0o700
    assert found["a/x"] == tree(tmp_path, [entry("a/x", b"new")])["a/x"]


def test_a_whiteout_removes_what_lies_below_its_layer_and_nothing_of_its_own(tmp_path: Path) -> None:
    lower = [entry("a", kind=DIR), entry("a/b", kind=DIR), entry("a/b/x", b"1"), entry("a/bc", b"2")]
    assert set(tree(tmp_path, lower, [entry("a/.wh.b")])) == {"a", "a/bc"}
    assert set(tree(tmp_path, lower, [entry("a/b", kind=DIR), entry("a/b/new"), entry("a/.wh.b")])) == {
        *("a", "a/bc", "a/b", "a/b/new")
    }


def test_an_opaque_folder_hides_all_that_was_in_it(tmp_path: Path) -> None:
    lower = [entry("a", kind=DIR), entry("a/b", kind=DIR), entry("a/b/x"), entry("c")]
    assert set(tree(tmp_path, lower, [entry("a", kind=DIR), entry("a/new"), entry("a/.wh..wh..opq")])) == {
        *("a", "a/new", "c")
    }
    assert set(tree(tmp_path, lower, [entry(".wh..wh..opq"), entry("d")])) == {"d"}


def test_a_file_in_the_place_of_a_folder_takes_all_below_it_away(tmp_path: Path) -> None:
    assert set(tree(tmp_path, [entry("a", kind=DIR), entry("a/x")], [entry("a", b"file")])) == {"a"}
    assert set(tree(tmp_path, [entry("a", kind=DIR), entry("a/x")], [entry("a", kind=SYM, linkname="b")])) == {"a"}


def test_a_second_name_is_a_second_file(tmp_path: Path) -> None:
    found = tree(
        tmp_path, [entry("low", b"low")], [entry("one", b"1"), entry("two", kind=LINK, linkname="one")],
        [entry("three", kind=LINK, linkname="low")],
    )  # fmt: skip
    assert found["two"] == found["one"]
    assert found["three"] == found["low"]


def test_times_and_order_do_not_count_and_all_else_does(tmp_path: Path) -> None:
    def of(*members: tuple[tarfile.TarInfo, bytes]) -> str:
        return tree_digest(tree(tmp_path, list(members)))

    one = of(entry("a", b"x", mtime=1), entry("b", b"y"))
    assert one == of(entry("./b", b"y", mtime=7), entry("a", b"x", uname="root"))
    others = [
        of(entry("a", b"z"), entry("b", b"y")),
        of(entry("a", b"x", mode=0o755), entry("b", b"y")),
        of(entry("a", b"x", uid=1), entry("b", b"y")),
        of(entry("a", b"x", gid=1), entry("b", b"y")),
        of(entry("a", kind=SYM, linkname="x"), entry("b", b"y")),
        of(entry("a", kind=SYM, linkname="y"), entry("b", b"y")),
        of(entry("a", b"x")),
    ]
    assert len({one, *others}) == 1 + len(others)


def test_folders_that_no_layer_names_are_there_all_the_same(tmp_path: Path) -> None:
    assert tree(tmp_path, [entry("a/b/x")]) == tree(
        tmp_path, [entry("a", kind=DIR, mode=0o755), entry("a/b", kind=DIR, mode=0o755), entry("a/b/x")]
    )


def test_differences_name_the_paths_and_what_differs(tmp_path: Path) -> None:
    one = tree(tmp_path, [entry("a", b"x"), entry("b", b"y"), entry("c"), entry("e")])
    other = tree(tmp_path, [entry("a", b"z"), entry("b", b"y", mode=0o600), entry("d"), entry("e")])
    said = differences(one, other)
    assert [sentence.split()[0] for sentence in said] == ["/a:", "/b:", "/c", "/d"]
    assert "content" in said[0]
    assert said[1] == "/b: mode 0644, then 0600"
    assert said[2:] == ["/c is only in the first", "/d is only in the second"]
    assert differences(one, other, most=1) == said[:1]
    assert differences(one, one) == []


def test_the_json_says_what_the_digest_covers(tmp_path: Path) -> None:
    assert as_json(tree(tmp_path, [entry("l", kind=SYM, linkname="t", uid=3)])) == {
        "/l": ["symlink", "0777", "3:0", "t"]
    }


@pytest.mark.parametrize(
    "members",
    [
        [entry("../x")],
        [entry("/x")],
        [entry("a/../x")],
        [entry("a", kind=SYM, linkname="/etc"), entry("a/x")],
        [entry("a"), entry("a/x")],
        [entry("a", kind=LINK, linkname="gone")],
        [entry("a", kind=LINK, linkname="b"), entry("b", kind=LINK, linkname="a")],
        [entry("a", kind=LINK, linkname="../../etc/passwd")],
    ],
    ids=["parent", "absolute", "inside", "below a link", "below a file", "no target", "a ring", "link outside"],
)
def test_hostile_layers_are_refused(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(StepFailed):
        tree(tmp_path, members)


def test_a_damaged_layer_or_another_one_is_refused(tmp_path: Path) -> None:
    [blob] = layers(tmp_path, [entry("a", b"x" * 5000)])
    with pytest.raises(StepFailed, match="not sha256:0"):
        tree_entries([blob], ["sha256:0"])
    blob.write_bytes(blob.read_bytes()[:2000])
    with pytest.raises(StepFailed):
        tree_entries([blob])


def test_a_header_of_many_megabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    with path.open("wb") as file:
        file.write(entry("x", kind=tarfile.XHDTYPE, size=1 << 30)[0].tobuf())
        file.truncate(1 << 31)
    with pytest.raises(StepFailed, match="header of 1073741824 bytes"):
        tree_entries([path])


def test_memory_does_not_grow_with_the_files_or_with_what_a_blob_swells_to(tmp_path: Path) -> None:
    written = write_layer("big", [file_of("zeros", bytes(64 << 20))], tmp_path, created=0, level=9)
    assert written.files["blob"].stat().st_size < 1 << 20
    tracemalloc.start()
    tree_entries([written.files["blob"]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
