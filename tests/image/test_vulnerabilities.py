"""The vulnerability scan: what is asked, what comes of the answers, and that silence is never good news.

OSV cannot be reached from where these tests run. A server on loopback stands in for it: it answers in the form that
OSV documents, with records made for the purpose.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from image_helpers import Image
from support import ROOT, workbench

from workbench.errors import MachineLacks, UsageError
from workbench.image import downloads, vulnerabilities
from workbench.image.base import SUITES

RECORDS: dict[str, dict[str, Any]] = {
    "GHSA-made-up-0001": {
        "database_specific": {"severity": "HIGH"},
        "affected": [
            {
                "package": {"name": "numpy", "ecosystem": "PyPI"},
                "ranges": [
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.99.1"}]},
                    {"type": "ECOSYSTEM", "events": [{"introduced": "2.0"}, {"fixed": "99.2"}, {"fixed": "99.10"}]},
                ],
            },
            {"package": {"name": "other", "ecosystem": "PyPI"}, "ranges": [{"events": [{"fixed": "99.1"}]}]},
        ],
    },
    "PYSEC-0000-2": {"affected": [], "withdrawn": "2026-01-01T00:00:00Z"},
    "DEBIAN-CVE-0000-1": {
        "affected": [
            {
                "package": {"name": "openssl", "ecosystem": release},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
                "ecosystem_specific": {"urgency": urgency},
            }
            for release, fixed, urgency in (("Debian:11", "1.0", "low"), ("Debian:12", "3.99-1~deb12u1", "unimportant"))
        ],
    },
    "CVE-0000-3": {"affected": [{"package": {"name": "python3.11", "ecosystem": "Debian:12"}, "ranges": []}]},
}
KNOWN = {
    "numpy": [["GHSA-made-up-0001"], ["PYSEC-0000-2"]],
    "openssl": [["DEBIAN-CVE-0000-1"]],
    "python3.11": [["CVE-0000-3"]],
}
"""The ids of each package, by page."""


@dataclass
class Osv:
    """A stand-in for OSV. ``spoil`` may answer in its place."""

    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    spoil: Callable[[str], tuple[int, bytes] | None] = lambda path: None

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if (spoiled := self.spoil(path)) is not None:
            return spoiled
        if path == "/v1/querybatch":
            queries = json.loads(body)["queries"]
            self.asked += queries
            return 200, json.dumps({"results": [self._page(query) for query in queries]}).encode()
        record = RECORDS.get(path.removeprefix("/v1/vulns/"))
        return (404, b"") if record is None else (200, json.dumps(record).encode())

    def _page(self, query: dict[str, Any]) -> dict[str, Any]:
        pages = KNOWN.get(query["package"]["name"], [])
        page = int(query.get("page_token", 0))
        if page >= len(pages):
            return {}
        more = {"next_page_token": str(page + 1)} if page + 1 < len(pages) else {}
        return {"vulns": [{"id": name, "modified": "2026-01-01T00:00:00Z"} for name in pages[page]], **more}


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[Osv]:
    stand_in = Osv()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, data = stand_in.answer(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        stand_in.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv(vulnerabilities.ADDRESS, stand_in.address)
        yield stand_in
        server.shutdown()
        thread.join()


@pytest.fixture
def locked(project: Path) -> Path:
    """The recipe of a project with the shipped lock beside it."""
    shutil.copyfile(ROOT / "recipes" / "digits.lock.yaml", project / "recipes" / "digits.lock.yaml")
    return project / "recipes" / "digits.yaml"


def test_debian_is_asked_by_source_package_and_wheels_by_name(locked: Path, osv: Osv) -> None:
    vulnerabilities.scan(locked)
    asked = {(q["package"]["ecosystem"], q["package"]["name"]): q["version"] for q in osv.asked}
    assert ("Debian:12", "openssl") in asked
    assert ("Debian:12", "libssl3") not in asked
    assert asked["Debian:12", "bzip2"] == "1.0.8-5"
    assert re.fullmatch(r"2\.\d+\.\d+", asked["PyPI", "numpy"])
    assert len([q for q in osv.asked if q["package"]["name"] == "python3.11"]) == 1


def test_what_is_known_is_told_with_severity_and_fix(locked: Path, osv: Osv) -> None:
    found = vulnerabilities.scan(locked)
    rows = [(each["package"], each["id"], each["severity"], each["fixed_in"]) for each in found["found"]]
    assert rows[0] == ("numpy", "GHSA-made-up-0001", "high", "99.2")
    assert ("libssl3", "DEBIAN-CVE-0000-1", "unimportant", "3.99-1~deb12u1") in rows
    assert ("python3.11-minimal", "CVE-0000-3", "unrated", "") in rows
    assert not [row for row in rows if row[1] == "PYSEC-0000-2"], "what was withdrawn is no vulnerability"
    assert [(each["source"], each["scanned"], each["found"]) for each in found["sources"]] == [
        ("Debian:12", True, len(rows) - 1),
        ("PyPI", True, 1),
    ]
    vulnerabilities.check_scanned(found)


def test_the_command_prints_a_table_and_ends_well_where_all_was_scanned(locked: Path, osv: Osv) -> None:
    done = workbench(locked.parent.parent, "scan", str(locked))
    assert done.returncode == 0, done.stderr
    assert re.search(r"numpy +\S+ +GHSA-made-up-0001 +high +99\.2", done.stdout)
    assert re.search(r"PyPI +6 packages +1 found", done.stdout)
    assert json.loads(workbench(locked.parent.parent, "scan", str(locked), "--json").stdout)["found"]


def test_nothing_known_is_zero_found(locked: Path, osv: Osv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_vulnerabilities.KNOWN", {})
    found = vulnerabilities.scan(locked)
    assert found["found"] == []
    assert {each["found"] for each in found["sources"]} == {0}


def test_a_refused_connection_is_not_scanned_and_exit_6(locked: Path) -> None:
    refused = {vulnerabilities.ADDRESS: "http://127.0.0.1:9"}
    done = workbench(locked.parent.parent, "scan", str(locked), **refused)
    assert done.returncode == 6
    assert len(re.findall("not scanned: OSV cannot be reached", done.stdout)) == 2
    assert "found" not in done.stdout
    assert vulnerabilities.ADDRESS in done.stderr
    rows = json.loads(workbench(locked.parent.parent, "scan", str(locked), "--json", **refused).stdout)["sources"]
    assert [(row["scanned"], row["found"]) for row in rows] == [(False, None)] * 2


@pytest.mark.parametrize(
    ("status", "data", "why"),
    [
        (500, b"", "status 500"),
        (302, b"", "status 302"),
        (200, b"<html>", "not OSV's"),
        (200, b"[]", "not OSV's"),
        (200, b'{"results": []}', "not OSV's"),
        (200, b'{"results": [' + b",".join([b'{"vulns": [{"id": "../../x"}]}'] * 8) + b"]}", "not OSV's"),
        (200, b'{"results": [' + b",".join([b'{"next_page_token": "again"}'] * 8) + b"]}", "not OSV's|no end"),
        (200, b" " * (33 << 20), "too large"),
    ],
    ids=["500", "redirect", "html", "list", "short", "path", "endless", "large"],
)
def test_an_answer_that_is_none_is_not_scanned(locked: Path, osv: Osv, status: int, data: bytes, why: str) -> None:
    osv.spoil = lambda path: (status, data) if path == "/v1/querybatch" else None
    found = vulnerabilities.scan(locked)
    assert all(re.search(why, each["why"]) and not each["scanned"] for each in found["sources"])
    with pytest.raises(MachineLacks, match="Not scanned"):
        vulnerabilities.check_scanned(found)


def test_one_source_that_fails_leaves_what_the_other_found(locked: Path, osv: Osv) -> None:
    osv.spoil = lambda path: (503, b"") if path.endswith("DEBIAN-CVE-0000-1") else None
    found = vulnerabilities.scan(locked)
    assert [each["scanned"] for each in found["sources"]] == [False, True]
    assert [each["package"] for each in found["found"]] == ["numpy"]
    with pytest.raises(MachineLacks, match="Debian:12"):
        vulnerabilities.check_scanned(found)


def test_a_record_of_another_form_is_told_as_far_as_it_goes(
    locked: Path, osv: Osv, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"affected": [None, {"package": "numpy", "ranges": 3}], "database_specific": {"severity": ["x"]}}
    monkeypatch.setitem(RECORDS, "GHSA-made-up-0001", odd)
    row = next(each for each in vulnerabilities.scan(locked)["found"] if each["package"] == "numpy")
    assert (row["severity"], row["fixed_in"]) == ("unrated", "")


def test_a_mirror_is_asked_over_https_only(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vulnerabilities.ADDRESS, "http://user:s3cret@mirror.example.com")
    with pytest.raises(UsageError) as caught:
        vulnerabilities.scan(locked)
    assert "s3cret" not in str(caught.value)


def test_a_recipe_without_a_lock_names_the_cure(project: Path) -> None:
    with pytest.raises(UsageError, match="no lock"):
        vulnerabilities.scan(project / "recipes" / "digits.yaml")


@pytest.mark.integration
def test_every_package_of_the_base_is_asked_by_the_source_that_debian_names(image: Image) -> None:
    pins = json.loads(image.files["base_pins"].read_bytes())["packages"]
    assert {pin["name"] for pin in pins} == set(SUITES["bookworm"].packages)
    for pin in pins:
        deb = downloads.take(pin["sha256"])
        assert deb is not None
        shown = ["dpkg-deb", "--showformat", "${source:Package} ${source:Version}", "-W", str(deb)]
        said = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        package = vulnerabilities._debian(pin)
        assert f"{package.known_as} {package.known_version}" == said
