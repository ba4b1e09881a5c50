"""Debian packages as a layer: unpacked, merged, with what an installation would have made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from workbench.errors import StepFailed
from workbench.image.layers import Entry, in_order
from workbench.image.omit import Omitted
from workbench.image.rootfs import APP_USER, Rootfs

pytestmark = pytest.mark.integration

OMITTED = Omitted.parse("usr/share/doc/*/**\n!usr/share/doc/*/copyright\nusr/share/man\nusr/share/ca-certificates\n")


def deb(folder: Path, name: str, files: dict[str, str], links: dict[str, str] | None = None, control: str = "") -> Path:
    """A real package with these files and links."""
    tree = folder / f"{name}-tree"
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    for path, target in (links or {}).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN").chmod(0o755)
    head = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@example.com>\nDescription: a test\n"
    (tree / "DEBIAN" / "control").write_text(head + control)
    path = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, path], check=True, capture_output=True)
    return path


def unpacked(folder: Path, *debs: Path) -> tuple[dict[str, Entry], int]:
    with Rootfs(folder / "unpacked", OMITTED) as root:
        for path in debs:
            root.add(path.stem, path)
        entries = {entry.path: entry for entry in in_order(root.entries())}
        for entry in entries.values():
            if entry.open is not None:
                CONTENT[entry.path] = entry.open().read()
        return entries, root.omitted_bytes


CONTENT: dict[str, bytes] = {}


@pytest.fixture(autouse=True)
def _nothing_read() -> None:
    CONTENT.clear()


def test_libraries_of_the_old_folders_lie_below_usr(tmp_path: Path) -> None:
    entries, _ = unpacked(tmp_path, deb(tmp_path, "a", {"lib/x.so": "x", "usr/lib/y.so": "y", "sbin/z": "z"}))
    assert CONTENT["usr/lib/x.so"] == b"x"
    assert CONTENT["usr/sbin/z"] == b"z"
    assert (entries["lib"].kind, entries["lib"].target) == ("symlink", "usr/lib")
    assert entries["sbin"].target == "usr/sbin"
    assert not any(path.startswith(("lib/", "sbin/")) for path in entries)


def test_accounts_and_temporary_folders_are_there(tmp_path: Path) -> None:
    entries, _ = unpacked(tmp_path, deb(tmp_path, "a", {"usr/a": "a"}))
    names = [line.split(b":")[0] for line in CONTENT["etc/passwd"].splitlines()]
    assert names == [b"root", b"nobody", b"workbench"]
    assert b":%d:%d:" % (APP_USER, APP_USER) in CONTENT["etc/passwd"]
    assert entries["tmp"].mode == 0o1777
    assert entries["root"].mode == 0o700


def test_documentation_is_left_out_and_counted_but_licences_stay(tmp_path: Path) -> None:
    files = {"usr/share/doc/a/copyright": "MIT", "usr/share/doc/a/readme": "12345", "usr/share/man/man1/a.1": "678"}
    entries, omitted = unpacked(tmp_path, deb(tmp_path, "a", files))
    assert "usr/share/doc/a/copyright" in entries
    assert "usr/share/doc/a/readme" not in entries
    assert not any(path.startswith("usr/share/man") for path in entries)
    assert omitted == 8


def test_dpkg_status_names_every_package_once_and_in_order(tmp_path: Path) -> None:
    unpacked(tmp_path, deb(tmp_path, "bb", {"usr/b": "b"}), deb(tmp_path, "aa", {"usr/a": "a"}))
    status = CONTENT["var/lib/dpkg/status"].decode()
    assert status.index("Package: aa\nStatus: install ok installed\n") < status.index("Package: bb\n")
    assert status.count("Status: install ok installed") == 2


def test_the_ca_bundle_holds_every_certificate_in_the_order_of_names(tmp_path: Path) -> None:
    folder = "usr/share/ca-certificates/mozilla"
    entries, _ = unpacked(tmp_path, deb(tmp_path, "ca", {f"{folder}/B.crt": "two\n", f"{folder}/A.crt": "one"}))
    assert CONTENT["etc/ssl/certs/ca-certificates.crt"] == b"one\ntwo\n"
    assert entries["usr/lib/ssl/cert.pem"].target == "/etc/ssl/certs/ca-certificates.crt"


def test_links_and_second_names_survive(tmp_path: Path) -> None:
    path = deb(tmp_path, "a", {"usr/lib/x.so.1.2": "x"}, {"usr/lib/x.so.1": "x.so.1.2"})
    entries, _ = unpacked(tmp_path, path)
    assert entries["usr/lib/x.so.1"].target == "x.so.1.2"


def test_nothing_may_become_another_user(tmp_path: Path) -> None:
    tree = tmp_path / "a-tree"
    (tree / "usr").mkdir(parents=True)
    (tree / "usr" / "su").write_text("s")
    (tree / "usr" / "su").chmod(0o4755)
    entries, _ = unpacked(tmp_path, deb(tmp_path, "a", {"usr/x": "x"}))
    assert entries["usr/su"].mode == 0o755


def test_a_file_of_two_packages_is_refused_by_name(tmp_path: Path) -> None:
    one, two = deb(tmp_path, "one", {"lib/same": "1"}), deb(tmp_path, "two", {"usr/lib/same": "2"})
    with pytest.raises(StepFailed, match=r"one and two both have the file /usr/lib/same"):
        unpacked(tmp_path, one, two)


def test_a_file_that_is_no_package_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.deb").write_bytes(b"!<arch>\ntruncated")
    with pytest.raises(StepFailed, match="broken"):
        unpacked(tmp_path, tmp_path / "broken.deb")
