"""A Docker engine for the reports, and what stands there for ``python:3.11-slim``, which no registry here can give.

The engine's data, peers' images and build cache among them, stay in the ground's folder; its containers do not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ground import call, tell

from workbench.image.apt import sources_for
from workbench.image.buildkit import environment_for, find_cli

sys.path.append(str(Path(__file__).resolve().parents[1]))
import services

SUITE = "bookworm"
BASE = "bench/python-slim"
GZIP_LEVEL = 6
_PIECE = 1 << 20
_KEPT_BUILD_CACHE = "6gb"
_CA = "/usr/local/share/bench-ca.crt"
_PACKAGES = "python3.11,python3-pip,python3.11-venv,python-is-python3,ca-certificates"
# What Docker's Debian images leave out as well; bytecode too, as the images of Python do.
_OMITTED = ("doc", "man", "info", "locale", "lintian")


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    address: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For commands that talk to it."""
        return environment_for(self.address, os.environ)

    def docker(self, *words: str | Path) -> str:
        """Runs a ``docker`` command that must succeed; what it printed."""
        return call(find_cli().words[0], *words, folder=self.folder, environment=self.environment)

    def build(self, tag: str, context: Path, dockerfile: Path) -> float:
        """Builds an image with BuildKit; seconds. ``RUN`` has this machine's network, for its package indexes."""
        start = time.perf_counter()
        words = ("--network", "host", "--tag", tag, "--file", dockerfile, context)
        call(*find_cli().words, *words, folder=self.folder, environment=self.environment)
        return time.perf_counter() - start

    def has(self, image: str) -> bool:
        return bool(self.docker("image", "ls", "--quiet", image))

    def size(self, image: str) -> int:
        """The bytes of an image's layers, unpacked."""
        return int(self.docker("image", "inspect", "--format", "{{.Size}}", image))

    def compressed(self, image: str) -> int:
        """The bytes of an image as gzip (level 6, the usual) packs what ``docker save`` writes."""
        packer, size = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31), 0
        words = (find_cli().words[0], "save", image)
        with subprocess.Popen(words, env=self.environment, stdout=subprocess.PIPE) as saving:
            assert saving.stdout is not None
            while piece := saving.stdout.read(_PIECE):
                size += len(packer.compress(piece))
        if saving.returncode:
            raise SystemExit(f"docker save {image} ended with {saving.returncode}.")
        return size + len(packer.flush())

    def tidy(self) -> None:
        """Removes containers, images without a name, and build cache beyond what is worth keeping."""
        self.docker("container", "prune", "--force")
        self.docker("image", "prune", "--force")
        self.docker("builder", "prune", "--force", "--keep-storage", _KEPT_BUILD_CACHE)


@contextlib.contextmanager
def running(folder: Path, wanted: bool) -> Iterator[Engine | None]:
    """An engine while it is needed; None where it is not ``wanted`` or cannot be had.

    Its guardian, and the processes it leaves to others, are no children of whoever measures: see :func:`measure.reap`.
    """
    if not wanted or os.geteuid() != 0 or shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        yield None
        return
    shutil.rmtree(folder / "services", ignore_errors=True)  # of a report that was killed
    with started(folder, "bench-engine", lambda own: _command(own, folder / "engine")) as service:
        services.wait_for_engine(service)
        engine = Engine(service.address, folder)
        _remove_containers(engine)
        try:
            yield engine
        finally:
            _remove_containers(engine)
            engine.tidy()


@contextlib.contextmanager
def registry(folder: Path, name: str) -> Iterator[services.Service]:
    """An empty image registry, gone afterwards."""
    with started(folder, name, services.registry_command) as service:
        services.wait_for_registry(service)
        yield service


@contextlib.contextmanager
def started(folder: Path, name: str, command: Callable[[Path], tuple[str, list[str]]]) -> Iterator[services.Service]:
    """A service that runs for a while; its guardian ends it also where this process is killed."""
    records = folder / "services" / f"{name}-{os.getpid()}"
    records.mkdir(parents=True, exist_ok=True)
    try:
        yield services.shared(records, name, os.getpid(), command)
    finally:
        services.stop_all(records)
        shutil.rmtree(records)


def _command(own: Path, data: Path) -> tuple[str, list[str]]:
    address, words = services.engine_command(own)
    return address, [str(data) if word == f"{own}/data" else word for word in words]


def _remove_containers(engine: Engine) -> None:
    if there := engine.docker("ps", "--all", "--quiet").split():
        engine.docker("rm", "--force", "--volumes", *there)


# --- the stand-in for python:3.11-slim


def base(engine: Engine) -> str:
    """The stand-in: Debian with Python, pip and venv, made from the packages that this machine's sources have.

    It also knows this machine's package index and certificates, so that the peers' Dockerfiles stay as they are.
    """
    if not engine.has(BASE):
        tell("Making the base image that the peers stand on.")
        if shutil.which("mmdebstrap") is None:
            raise SystemExit("mmdebstrap is missing: apt-get install mmdebstrap")
        archive = engine.folder / "python-slim.tar"
        _debian(engine.folder, archive)
        changes = [f"ENV {name}={_CA}" for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
        words = [word for change in (*changes, 'CMD ["python3"]') for word in ("--change", change)]
        engine.docker("import", *words, archive, BASE)
        archive.unlink()
    return BASE


def _debian(folder: Path, archive: Path) -> None:
    sources, settings = folder / "debian.sources", folder / "pip.conf"
    sources.write_text("\n".join(source.as_text() for source in sources_for(SUITE)))
    found = _pip_settings()
    lines = [f"{name} = {value}" for name, value in found.items() if name != "cert"]
    settings.write_text("\n".join(["[global]", *lines, ""]))
    shutil.copyfile(found.get("cert", "/etc/ssl/certs/ca-certificates.crt"), folder / "ca.crt")
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _OMITTED]
    hooks = [
        'find "$1"/usr/lib -name __pycache__ -prune -exec rm -rf {} +',
        'rm "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED',
        f"upload {folder / 'ca.crt'} {_CA}",
        f"upload {settings} /etc/pip.conf",
    ]
    call(
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        f"--include={_PACKAGES}",
        *excluded,
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(f"--customize-hook={hook}" for hook in hooks),
        SUITE,
        archive,
        sources,
        folder=folder,
    )
    for each in (sources, settings, folder / "ca.crt"):
        each.unlink()


def _pip_settings() -> Mapping[str, str]:
    """What pip is told here about where packages come from; folders of this machine are not there in a build."""
    listed = call(sys.executable, "-m", "pip", "config", "list", folder=Path("/"))
    found = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        if name.rpartition(".")[2] in ("cert", "index-url", "extra-index-url", "trusted-host"):
            kept = [word for word in value.strip("'\"").split() if not word.startswith("file:")]
            found |= {name.rpartition(".")[2]: " ".join(kept)} if kept else {}
    return found
