"""The Python packages of an image: resolved for its interpreter and platform, locked by content, unpacked into a
layer."""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from workbench.errors import MachineLacks, StepFailed, UsageError
from workbench.image import downloads, index, omit, tools, unwheel
from workbench.image.layers import write_layer, written_json
from workbench.steps import Emit, Outputs

_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "aarch64"}
_RELOCK = "Lock the wheels again: workbench run RECIPE --update wheels"


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def target_tags(python: str, platform: str) -> list[str]:
    """Wheel tags that run on the target, best first: ``platform`` as ``x86_64-manylinux_2_28``."""
    from packaging import tags

    found = re.fullmatch(r"(?P<arch>\w+)-manylinux_(?P<major>\d+)_(?P<minor>\d+)", platform)
    if found is None or found["arch"] not in _ARCHITECTURES:
        raise UsageError(f"The platform {platform!r} is not supported.", "Use such as x86_64-manylinux_2_28.")
    arch = found["arch"]
    platforms: list[str] = []
    for minor in range(int(found["minor"]), 4, -1):
        platforms.append(f"manylinux_{found['major']}_{minor}_{arch}")
        legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}.get(minor)
        if legacy:
            platforms.append(f"{legacy}_{arch}")
    platforms.append(f"linux_{arch}")
    version = tuple(int(part) for part in python.split("."))
    own = tags.cpython_tags(version, [f"cp{python.replace('.', '')}"], platforms)
    return [str(tag) for tag in (*own, *tags.compatible_tags(version, f"cp{python.replace('.', '')}", platforms))]


def resolve(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:  # noqa: ARG001
    """Locks the wheels: name, version, file name, sha256 and size of one wheel a package; each is fetched and checked.

    ``params``: ``python`` (``"3.11"``), ``platform``, ``requirements`` (such as ``["numpy==2.4.6"]``). Raises
    UsageError for requirements that no wheels fulfil (named), MachineLacks where the package index cannot be reached.
    """
    python, platform = str(params["python"]), str(params["platform"])
    requirements = list(params["requirements"])
    tags = target_tags(python, platform)
    where = index.of_this_machine()
    emit.progress(0, 2, f"resolving {len(requirements)} requirements")
    packages = _compiled(requirements, python, platform, where, emit.scratch)
    asked = {_normalised(re.split(r"[\s\[<>=!~;(@]", text.strip())[0]) for text in requirements}
    left_out = omit.shipped().distributions - asked
    chosen = [_chosen(package, tags) for package in packages if _normalised(package["name"]) not in left_out]
    emit.progress(1, 2, f"fetching {len(chosen)} wheels")
    files = fetched(chosen, python, where, emit)
    wheels = [{**wheel, "size": files[wheel["sha256"]].stat().st_size} for wheel in chosen]
    pins = {"python": python, "platform": platform, "wheels": sorted(wheels, key=lambda wheel: str(wheel["name"]))}
    emit.progress(2, 2)
    return Outputs({"pins": written_json(emit.scratch / "pins", pins)}, {"pins": pins})


def _compiled(
    requirements: Sequence[str], python: str, platform: str, where: index.Index, scratch: Path
) -> list[dict[str, Any]]:
    """What uv resolves, as the packages of a PEP 751 lock; it holds addresses, so it is read and dropped."""
    import uv

    source = scratch / "requirements.in"
    source.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    command = [
        *(uv.find_uv_bin(), "pip", "compile", str(source), "--format", "pylock.toml", "--quiet"),
        *("--python-version", python, "--python-platform", platform, "--only-binary", ":all:"),
        *("--no-header", "--no-annotate", "--no-python-downloads", "--color", "never"),
        *(("--no-index",) if where.no_index else ()),
    ]
    done = tools.run(command, {**os.environ, **where.for_uv()})
    if done.returncode:
        raise _unresolved(done.stderr)
    packages: list[dict[str, Any]] = tomllib.loads(done.stdout).get("packages", [])
    return packages


_UNREACHABLE = re.compile(r"failed to fetch|error sending request|could not connect|dns error|timed out", re.IGNORECASE)
_SOURCE_ONLY = re.compile(r"\b([A-Za-z0-9][\w.-]*?)(?:[=<>!~]=?\S+)? has no (?:usable |compatible )?wheels")


def _unresolved(said: str) -> UsageError | MachineLacks:
    if _UNREACHABLE.search(said):
        return MachineLacks(
            f"The Python package index cannot be reached: {tools.last_words(said, 2)}",
            "See that `pip download numpy` works here (pip config, UV_INDEX), then run the same command again.",
        )
    source_only = sorted(set(_SOURCE_ONLY.findall(said)))
    if source_only:
        return UsageError(
            f"{', '.join(source_only)}: no wheel for the image's Python and platform, "
            "and source packages are not built.",
            "Use a version that has one, or put a wheel of your own into a folder named by pip's find-links.",
        )
    return UsageError(
        f"The image's Python packages cannot be resolved: {tools.last_words(said)}", "Correct the requirements."
    )


def _chosen(package: Mapping[str, Any], tags: Sequence[str]) -> dict[str, Any]:
    """The wheel of ``package`` that suits the target best: name, version, filename, sha256."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    rank = {tag: position for position, tag in enumerate(tags)}
    fitting = []
    for wheel in package.get("wheels", ()):
        place = wheel.get("name") or wheel.get("url") or wheel.get("path") or ""
        filename = unquote(urlsplit(place).path).rpartition("/")[2]
        try:
            wheel_tags = parse_wheel_filename(filename)[3]
        except InvalidWheelFilename:
            continue
        positions = [rank[str(tag)] for tag in wheel_tags if str(tag) in rank]
        if positions and "sha256" in wheel.get("hashes", {}):
            fitting.append((min(positions), filename, wheel["hashes"]["sha256"]))
    if not fitting:
        raise UsageError(
            f"{package['name']} {package.get('version', '')}: no wheel for the image's Python and platform, "
            "and source packages are not built.",
            "Use a version that has one, or put a wheel of your own into a folder named by pip's find-links.",
        )
    _, filename, sha256 = min(fitting)
    return {"name": package["name"], "version": package["version"], "filename": filename, "sha256": sha256}


def fetched(wheels: Iterable[Mapping[str, Any]], python: str, where: index.Index | None, emit: Emit) -> dict[str, Path]:
    """The wheel files by sha256: from the cache, the rest fetched in one go and verified."""
    files: dict[str, Path] = {}
    missing = []
    for wheel in wheels:
        cached = downloads.take(wheel["sha256"])
        if cached is None:
            where = where or index.of_this_machine()
            near = (path for path in where.local(wheel["filename"]) if downloads.sha256_of(path) == wheel["sha256"])
            cached = next((downloads.keep(path, wheel["sha256"]) for path in near), None)
        if cached is None:
            missing.append(wheel)
        else:
            files[wheel["sha256"]] = cached
    if missing:
        assert where is not None
        files |= _download(missing, python, where, emit.scratch / "wheels")
    return files


def _download(wheels: Sequence[Mapping[str, Any]], python: str, where: index.Index, folder: Path) -> dict[str, Path]:
    folder.mkdir()
    listed = folder / "requirements.txt"
    lines = [f"{wheel['name']}=={wheel['version']} --hash=sha256:{wheel['sha256']}\n" for wheel in wheels]
    listed.write_text("".join(lines), encoding="utf-8")
    parts = [wheel["filename"].removesuffix(".whl").split("-") for wheel in wheels]
    platforms = sorted({tag for part in parts for tag in part[-1].split(".")} - {"any"})
    abis = sorted({tag for part in parts for tag in part[-2].split(".")})
    command = [
        *(*index.pip(), "download", "--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(listed)),
        *("--python-version", python, "--implementation", "cp", "--dest", str(folder)),
        *(word for abi in abis for word in ("--abi", abi)),
        *(word for platform in platforms for word in ("--platform", platform)),
    ]
    done = tools.run(command, {**os.environ, **where.for_pip()})
    arrived = {downloads.sha256_of(path): path for path in folder.glob("*.whl")}
    lost = [f"{wheel['name']}=={wheel['version']}" for wheel in wheels if wheel["sha256"] not in arrived]
    if done.returncode or lost:
        raise MachineLacks(
            f"The package index does not give {', '.join(lost) or 'the wheels'} with the locked content: "
            f"{tools.last_words(done.stderr, 2)}",
            f"See that the index is reachable (`pip config list`). {_RELOCK}",
        )
    kept = {str(wheel["sha256"]): downloads.keep(arrived[wheel["sha256"]], wheel["sha256"]) for wheel in wheels}
    shutil.rmtree(folder)
    return kept


_FILENAME = re.compile(r"[A-Za-z0-9_.!+]+(?:-[A-Za-z0-9_.!+]+){4,5}\.whl")


def read_pins(path: Path) -> dict[str, Any]:
    """The locked wheels. Raises UsageError where they are not what :func:`resolve` writes (a lock edited by hand)."""
    try:
        pins: dict[str, Any] = json.loads(path.read_bytes())
        for wheel in pins["wheels"]:
            usable = (
                re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", wheel["name"])
                and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*", wheel["version"])
                and re.fullmatch(r"[0-9a-f]{64}", wheel["sha256"])
                and _FILENAME.fullmatch(wheel["filename"])
            )
            if not usable:
                raise UsageError(f"The lock's wheel {wheel['name']!r} is not usable.", _RELOCK)
        if not re.fullmatch(r"\d+\.\d+", pins["python"]):
            raise UsageError(f"The lock's wheels are for Python {pins['python']!r}, which there is not.", _RELOCK)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"The lock's wheels are not usable ({error!r}).", _RELOCK) from error
    return pins


def layer(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Unpacks the locked wheels into ``/opt/wheels``: ``blob``, ``descriptor``, ``contents``.

    ``params``: ``created`` (seconds since 1970). Raises MachineLacks where a locked wheel is not to be had, StepFailed
    for a wheel that is damaged or hostile.
    """
    pins = read_pins(inputs["pins"])
    emit.progress(0, 2, "fetching wheels")
    files = fetched(pins["wheels"], pins["python"], None, emit)
    emit.progress(1, 2, "unpacking")
    with unwheel.Unpacked(omit.shipped()) as unpacked:
        for wheel in pins["wheels"]:
            unpacked.add(wheel["filename"], files[wheel["sha256"]])
        if not unpacked.found:
            raise StepFailed("The lock names no wheels.", _RELOCK)
        outputs = write_layer(
            "wheels",
            unpacked.entries(),
            emit.scratch,
            created=params["created"],
            omitted_bytes=unpacked.omitted_bytes,
            more={"python": pins["python"]},
        )
    emit.progress(2, 2)
    return outputs
