"""``workbench scan``: known vulnerabilities of what an image holds, asked of OSV (https://osv.dev).

What is asked about stands in the lock: Debian packages and wheels, each with its version. A source that cannot be asked
is *not scanned*; that is never the same as nothing found. Nothing is remembered: what is known changes by the day.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workbench import lock, recipe
from workbench.errors import MachineLacks, UsageError

if TYPE_CHECKING:
    from requests import Session

ADDRESS = "WORKBENCH_OSV"
"""The variable with the address of a mirror of OSV's API."""
_PUBLIC = "https://api.osv.dev"

_TIMEOUT = (5.0, 20.0)  # seconds to connect, seconds without a byte
_LARGEST = 32 << 20  # what OSV itself bounds its answers to
_MOST = 1000  # details asked for; an image with more has one problem, not a thousand
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_RELEASES = {"bookworm": "Debian:12"}

_SOURCES = {
    "gcc-12-base": "gcc-12",
    "libbz2-1.0": "bzip2",
    "libc6": "glibc",
    "libexpat1": "expat",
    "libffi8": "libffi",
    "libgcc-s1": "gcc-12",
    "liblzma5": "xz-utils",
    "libpython3.11-minimal": "python3.11",
    "libpython3.11-stdlib": "python3.11",
    "libssl3": "openssl",
    "libstdc++6": "gcc-12",
    "libuuid1": "util-linux",
    "python3.11-minimal": "python3.11",
    "zlib1g": "zlib",
}
"""Debian tracks vulnerabilities by source package: those of the base's packages, where the name is another."""


@dataclass(frozen=True)
class Package:
    """A package in the image, and what OSV calls it."""

    name: str
    version: str
    known_as: str
    known_version: str


@dataclass(frozen=True)
class Vulnerability:
    """One that is known of a package in the image; ``fixed_in`` is empty where no version fixes it yet."""

    package: str
    version: str
    id: str
    severity: str
    fixed_in: str


@dataclass(frozen=True)
class Source:
    """What was asked about one ecosystem. Where it was not ``scanned``, ``why`` says so."""

    source: str
    packages: int
    scanned: bool
    found: int | None
    why: str = ""


def scan(path: Path) -> dict[str, Any]:
    """What is known of the packages in the lock of the recipe at ``path``: ``sources`` and ``found``, plain JSON.

    Raises UsageError where there is no lock, or no image in it.
    """
    file = recipe.load(path)
    locked = lock.load(file.lock_path)
    if locked is None or locked.artifacts.image is None:
        raise UsageError(
            f"{path} has no lock with an image, so there is nothing to scan.", f"Run it: workbench run {path}"
        )
    sources: list[Source] = []
    found: list[Vulnerability] = []
    for ecosystem, packages in _asked(locked.artifacts):
        if not packages:
            why = "the lock does not name the packages of this base"
            sources.append(Source(ecosystem, 0, scanned=False, found=None, why=why))
            continue
        try:
            known = _known(ecosystem, packages)
        except _NotAsked as reason:
            sources.append(Source(ecosystem, len(packages), scanned=False, found=None, why=str(reason)))
        else:
            found += known
            sources.append(Source(ecosystem, len(packages), scanned=True, found=len(known)))
    order = {name: place for place, name in enumerate(("critical", "high", "moderate", "medium", "low", "unimportant"))}
    found.sort(key=lambda each: (order.get(each.severity, 4), each.package, each.id))
    return {"sources": [asdict(each) for each in sources], "found": [asdict(each) for each in found]}


def check_scanned(found: Mapping[str, Any]) -> None:
    """Raises MachineLacks where a source was not scanned: no news from it is no good news."""
    if missing := [each for each in found["sources"] if not each["scanned"]]:
        words = "; ".join(f"{each['source']}: {each['why']}" for each in missing)
        raise MachineLacks(
            f"Not scanned for vulnerabilities: {words}.",
            f"Scan where {_PUBLIC} can be reached, or name a mirror of its API in {ADDRESS}.",
        )


def _asked(artifacts: lock.Artifacts) -> Iterator[tuple[str, list[Package]]]:
    """The packages by OSV's ecosystem."""
    base = artifacts.base.pins if artifacts.base else {}
    yield _RELEASES.get(str(base.get("debian", "")), "base"), [_debian(each) for each in base.get("packages", ())]
    wheels = artifacts.wheels.pins.get("wheels", ()) if artifacts.wheels else ()
    yield "PyPI", [Package(each["name"], each["version"], each["name"], each["version"]) for each in wheels]


def _debian(pin: Mapping[str, Any]) -> Package:
    name, version = str(pin["name"]), str(pin["version"])
    # +b1: built again from the same source, which is what the tracker knows.
    return Package(name, version, _SOURCES.get(name, name), re.sub(r"\+b\d+$", "", version))


class _NotAsked(Exception):
    """Why a source could not be asked, in words."""


def _address() -> str:
    address = os.environ.get(ADDRESS, _PUBLIC).rstrip("/")
    parts = urlsplit(address)
    if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "::1", "localhost")):
        raise UsageError(f"{ADDRESS} is no address that can be asked safely.", "Give one that begins with https://.")
    return address


def _known(ecosystem: str, packages: Sequence[Package]) -> list[Vulnerability]:
    """The vulnerabilities of ``packages``. Raises _NotAsked."""
    import requests

    address = _address()
    with requests.Session() as session:
        # By what OSV calls it: three packages of one source are one question.
        names = sorted({(each.known_as, each.known_version) for each in packages})
        ids = _ids(session, address, ecosystem, names)
        if sum(map(len, ids.values())) > _MOST:
            raise _NotAsked(f"more than {_MOST} vulnerabilities were named, which cannot be")
        details = {name: _ask(session, f"{address}/v1/vulns/{name}") for name in sorted(set().union(*ids.values()))}
    return [
        Vulnerability(package.name, package.version, name, *_judged(details[name], ecosystem, package))
        for package in packages
        for name in sorted(ids[package.known_as, package.known_version])
        if not details[name].get("withdrawn")
    ]


def _ids(
    session: Session, address: str, ecosystem: str, names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], set[str]]:
    """The ids that OSV has for each name and version, page by page."""
    found: dict[tuple[str, str], set[str]] = {name: set() for name in names}
    left: list[tuple[tuple[str, str], str]] = [(name, "") for name in names]
    for _ in range(20):
        queries = [
            {"package": {"name": name[0], "ecosystem": ecosystem}, "version": name[1]}
            | ({"page_token": page} if page else {})
            for name, page in left
        ]
        results = _ask(session, f"{address}/v1/querybatch", {"queries": queries}).get("results")
        if not isinstance(results, list) or len(results) != len(left):
            raise _NotAsked("the answer is not OSV's")
        again = []
        for (name, _), result in zip(left, results, strict=True):
            found[name] |= _named(result)
            if page := result.get("next_page_token"):
                again.append((name, str(page)))
        if not (left := again):
            return found
    raise _NotAsked("the answer has no end")


def _named(result: Any) -> set[str]:
    vulns = result.get("vulns", []) if isinstance(result, dict) else None
    if not isinstance(vulns, list) or not all(isinstance(each, dict) and _is_id(each.get("id")) for each in vulns):
        raise _NotAsked("the answer is not OSV's")
    return {each["id"] for each in vulns}


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _ask(session: Session, address: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object that OSV answers. Raises _NotAsked; an address may hold a password and is not named."""
    import json

    import requests

    try:
        with session.request(
            "GET" if query is None else "POST",
            address,
            json=query,
            timeout=_TIMEOUT,
            stream=True,
            allow_redirects=False,
        ) as answer:
            if answer.status_code != 200:
                raise _NotAsked(f"OSV answers with status {answer.status_code}")
            data = bytearray()
            for piece in answer.iter_content(1 << 16):
                data += piece
                if len(data) > _LARGEST:
                    raise _NotAsked("the answer is too large")
        found = json.loads(bytes(data))
    except requests.RequestException as error:
        raise _NotAsked(f"OSV cannot be reached ({type(error).__name__})") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _NotAsked("the answer is not OSV's")
    return found


def _judged(details: Mapping[str, Any], ecosystem: str, package: Package) -> tuple[str, str]:
    """How severe a vulnerability is, in the words of who rated it, and the version that fixes it."""
    affected = [
        each
        for each in _dicts(details.get("affected"))
        if _dict(each.get("package")).get("ecosystem") == ecosystem
        and _normalised(_dict(each.get("package")).get("name")) == _normalised(package.known_as)
    ]
    rated = [_dict(details.get("database_specific")).get("severity")]
    rated += [_dict(each.get("ecosystem_specific")).get("urgency") for each in affected]
    severity = next(
        (word.lower() for word in rated if isinstance(word, str) and re.fullmatch(r"[A-Za-z ]{1,20}", word)), ""
    )
    events = [event for each in affected for span in _dicts(each.get("ranges")) for event in _dicts(span.get("events"))]
    fixed = [event["fixed"] for event in events if isinstance(event.get("fixed"), str) and len(event["fixed"]) < 100]
    return ("" if severity == "not yet assigned" else severity) or "unrated", _next(fixed, ecosystem, package)


def _next(fixed: Sequence[str], ecosystem: str, package: Package) -> str:
    """The nearest version that fixes it: several branches may have a fix each."""
    if ecosystem != "PyPI":
        return fixed[-1] if fixed else ""
    from packaging.version import InvalidVersion, Version

    later = []
    for text in fixed:
        try:
            if Version(text) > Version(package.version):
                later.append(text)
        except InvalidVersion:
            continue
    return min(later, key=Version, default="")


def _normalised(name: object) -> str:
    return re.sub(r"[-_.]+", "-", str(name)).lower()


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
