"""Package sources: taken from the machine, limited to what is asked, always signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import MachineLacks, UsageError
from workbench.image import apt

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://one.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Trusted: yes
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://two.example/other
Suites: bookworm-pgdg
Components: main

Types: deb
URIs: http://three.example/docker
Suites: bookworm
Components: stable

Enabled: no
Types: deb
URIs: http://four.example/debian
Suites: bookworm
Components: main
"""


def test_a_source_is_limited_to_the_suite_its_updates_and_main() -> None:
    sources = [source.limited_to("bookworm") for source in apt.parse_deb822(DEB822, Path("a.sources"))]
    assert [source is not None for source in sources] == [True, False, False, False]
    assert sources[0] is not None
    assert sources[0].fields["Suites"] == "bookworm bookworm-updates"
    assert sources[0].fields["Components"] == "main"
    assert sources[0].fields["Types"] == "deb"


def test_leave_to_skip_signatures_is_never_taken_over() -> None:
    deb822 = apt.parse_deb822(DEB822, Path("a.sources"))[0].limited_to("bookworm")
    line = apt.parse_list("deb [trusted=yes arch=amd64] http://one.example/debian bookworm main\n", Path("a.list"))
    one_line = line[0].limited_to("bookworm")
    assert deb822 is not None
    assert one_line is not None
    assert "trusted" not in (deb822.as_text() + one_line.as_text()).lower()


def test_a_one_line_source_is_understood_with_its_key() -> None:
    text = "# deb http://no.example x main\ndeb-src http://no.example bookworm main\n"
    text += (
        "deb [signed-by=/k.gpg check-valid-until=no] http://one.example/debian-security bookworm-security main # c\n"
    )
    source = apt.parse_list(text, Path("sources.list"))[0].limited_to("bookworm")
    assert source is not None
    assert source.fields["Suites"] == "bookworm-security"
    assert source.fields["Signed-By"] == "/k.gpg"
    assert source.fields["Check-Valid-Until"] == "no"


def test_a_key_inside_a_source_stays_whole() -> None:
    text = (
        "Types: deb\nURIs: http://one.example\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n"
    )
    source = apt.parse_deb822(text, Path("a.sources"))[0].limited_to("bookworm")
    assert source is not None
    assert "Signed-By: \n -----BEGIN\n .\n abc\n" in source.as_text()


def test_a_machine_without_a_source_is_told_what_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ubuntu.sources").write_text("Types: deb\nURIs: http://u.example\nSuites: noble\nComponents: main\n")
    monkeypatch.setenv("WORKBENCH_APT_SOURCES", str(tmp_path))
    with pytest.raises(MachineLacks) as caught:
        apt.sources_for("bookworm")
    assert "bookworm" in caught.value.message
    assert "debian-archive-keyring" in caught.value.cure


def test_sources_of_the_users_own_come_from_one_file_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.list"
    file.write_text("deb http://one.example/debian bookworm main\n")
    monkeypatch.setenv("WORKBENCH_APT_SOURCES", str(file))
    assert [source.fields["URIs"] for source in apt.sources_for("bookworm")] == ["http://one.example/debian"]
    monkeypatch.setenv("WORKBENCH_APT_SOURCES", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="does not exist"):
        apt.sources_for("bookworm")


@pytest.mark.integration
def test_an_unsigned_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository" / "dists" / "bookworm" / "main" / "binary-amd64"
    repository.mkdir(parents=True)
    (repository / "Packages").write_bytes(b"")
    (repository.parents[1] / "Release").write_text("Suite: bookworm\nComponents: main\nArchitectures: amd64\n")
    file = tmp_path / "my.list"
    file.write_text(f"deb [trusted=yes] file:{tmp_path}/repository bookworm main\n")
    monkeypatch.setenv("WORKBENCH_APT_SOURCES", str(file))
    with pytest.raises(MachineLacks) as caught:
        apt.Apt(tmp_path / "apt", "bookworm", "amd64").update()
    assert "signature" in caught.value.message
    assert "debian-archive-keyring" in caught.value.cure
