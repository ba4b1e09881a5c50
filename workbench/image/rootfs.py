"""Debian packages as the content of a layer: unpacked, not installed.

No maintainer script runs. What the scripts of these packages would make and a server needs is made here instead: the
merged ``/usr``, accounts, the CA bundle, dpkg's list of what there is. There is no ``ld.so.cache``: all libraries lie
in the loader's own default folders, which it searches without one.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, cast

from workbench.errors import StepFailed
from workbench.image import tools
from workbench.image.layers import Entry, file_of, folder, symlink
from workbench.image.omit import Omitted
from workbench.process import die_with_parent

APP_USER = 65532
"""The user and group the server runs as: beyond what distributions give out, as in other images without a shell."""

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_CERTIFICATES = "usr/share/ca-certificates/"

_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    f"workbench:x:{APP_USER}:{APP_USER}:workbench:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": f"root:x:0:\nnogroup:x:65534:\nworkbench:x:{APP_USER}:\n",
    # Without it glibc asks DNS before /etc/hosts, so even "localhost" would leave the machine.
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
}
_FOLDERS = {"dev": 0o755, "proc": 0o755, "sys": 0o755, "run": 0o755, "root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}
_LINKS = {
    # Where Debian's OpenSSL looks by default; the package openssl has these links.
    "usr/lib/ssl/cert.pem": f"/{_BUNDLE}",
    "usr/lib/ssl/certs": "/etc/ssl/certs",
}


def merged(path: str) -> str:
    """Where ``path`` lies in a merged ``/usr``: packages of this release still ship some of it under ``/lib``."""
    return f"usr/{path}" if path.partition("/")[0] in _MERGED else path


class Rootfs:
    """Collects packages (:meth:`add`), then gives the entries of one layer. ``omitted_bytes``: what was left out."""

    def __init__(self, scratch: Path, omitted: Omitted) -> None:
        scratch.mkdir()
        self._scratch = scratch
        self._omitted = omitted
        self._entries: dict[str, Entry] = {}
        self._owner: dict[str, str] = {}
        self._folders: dict[str, Entry] = {}
        self._folders_of_left_out: set[str] = set()
        self._status: list[str] = []
        self._open: list[tarfile.TarFile] = []
        self._certificates: list[tuple[str, bytes]] = []
        self.omitted_bytes = 0

    def __enter__(self) -> Rootfs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for archive in self._open:
            archive.close()

    def add(self, name: str, deb: Path) -> None:
        """Takes in the package ``name`` from the file ``deb``. Raises StepFailed where it is not a whole package."""
        files = self._members(name, deb, "--fsys-tarfile")
        for member in files:
            self._take(name, files, member)
        control = self._members(name, deb, "--ctrl-tarfile")
        texts = {member.name.removeprefix("./"): self._read(control, member) for member in control if member.isfile()}
        if "control" not in texts:
            raise StepFailed(f"The package {name} has no control file.")
        self._record(name, texts)

    def _members(self, name: str, deb: Path, what: str) -> tarfile.TarFile:
        path = self._scratch / f"{name}{what}.tar"
        with path.open("wb") as file:
            done = subprocess.run(
                [tools.found("dpkg-deb", "Install the package dpkg."), what, str(deb)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.PIPE,
                preexec_fn=die_with_parent,
                check=False,
            )
        if done.returncode:
            said = tools.last_words(done.stderr.decode(errors="replace"), 1)
            raise StepFailed(f"The package {name} cannot be unpacked: {said}")
        archive = tarfile.open(path, "r:")  # noqa: SIM115 - closed in __exit__
        self._open.append(archive)
        return archive

    @staticmethod
    def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        file = archive.extractfile(member)
        assert file is not None
        return file.read()

    def _take(self, name: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = merged(member.name.removeprefix("./").strip("/"))
        if path in ("", ".", *(f"usr/{top}" for top in _MERGED)) and member.isdir():
            return
        if member.isfile() and path.startswith(_CERTIFICATES) and path.endswith(".crt"):
            self._certificates.append((path, self._read(archive, member)))
        if self._omitted.leaves_out(path):
            self.omitted_bytes += member.size if member.isfile() else 0
            self._folders_of_left_out.update(str(parent) for parent in Path(path).parents)
            return
        if member.isdir():
            self._folders.setdefault(path, folder(path, member.mode & 0o1777))
            return
        if path in self._owner:
            raise StepFailed(f"The packages {self._owner[path]} and {name} both have the file /{path}.")
        self._owner[path] = name
        self._entries[path] = self._entry(name, archive, member, path)

    @staticmethod
    def _entry(name: str, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> Entry:
        if member.issym():
            return symlink(path, member.linkname)
        if member.islnk():
            # A second name becomes a second file: what a tar says of hard links depends on the order within it.
            member = archive.getmember(member.linkname)
        if not member.isfile():
            raise StepFailed(f"The package {name} has /{path}, which is neither file, folder nor link.")
        chosen = member
        # Without set-user-id bits: nothing in the image may become another user.
        return Entry(path, "file", member.mode & 0o777, member.size, lambda: _opened(archive, chosen))

    def _record(self, name: str, control: dict[str, bytes]) -> None:
        """What dpkg would have written down: scanners read from it what is in the image."""
        text = control["control"].decode("utf-8").strip("\n")
        first, _, rest = text.partition("\n")
        self._status.append(f"{first}\nStatus: install ok installed\n{rest}\n")
        sums = control.get("md5sums")
        if sums is not None:
            lines = sums.decode("utf-8").splitlines(keepends=True)
            kept = [line for line in lines if merged(line.split(None, 1)[1].strip()) in self._owner]
            same = ":" + _field(text, "Architecture") if _field(text, "Multi-Arch") == "same" else ""
            path = f"var/lib/dpkg/info/{name}{same}.md5sums"
            self._entries[path] = file_of(path, "".join(kept).encode())

    def entries(self) -> Iterator[Entry]:
        """All of it: the packages' files, and what an installation would have made."""
        yield from self._entries.values()
        yield from self._standing_folders()
        for path, text in _ACCOUNTS.items():
            if path not in self._entries:
                yield file_of(path, text.encode())
        for path, target in _LINKS.items():
            if path not in self._entries:
                yield symlink(path, target)
        tops = {path.split("/")[1] for path in self._entries if path.startswith("usr/")} & set(_MERGED)
        for top in tops:
            yield symlink(top, f"usr/{top}")
        yield file_of("var/lib/dpkg/status", "\n".join(sorted(self._status)).encode())
        if self._certificates:
            yield file_of(_BUNDLE, bundle(self._certificates))

    def _standing_folders(self) -> Iterator[Entry]:
        """Folders that hold something or were empty by intent, not those emptied by leaving things out."""
        holding = {str(parent) for path in self._entries for parent in Path(path).parents}
        for path, entry in self._folders.items():
            above = {str(parent) for parent in Path(path).parents}
            if (
                path not in _FOLDERS
                and path not in _MERGED
                and (path in holding or path not in self._folders_of_left_out)
            ):
                if any(self._omitted.leaves_out(parent) for parent in above):
                    continue
                yield entry
        for path, mode in _FOLDERS.items():
            yield folder(path, mode)


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    file: IO[bytes] | None = archive.extractfile(member)
    assert file is not None
    return cast("BinaryIO", file)


def _field(control: str, name: str) -> str:
    for line in control.splitlines():
        if line.lower().startswith(f"{name.lower()}:"):
            return line.partition(":")[2].strip()
    return ""


def bundle(certificates: list[tuple[str, bytes]]) -> bytes:
    """The CA bundle as update-ca-certificates writes it: every certificate in the order of its path, each ended by a
    newline."""
    return b"".join(data.rstrip(b"\n") + b"\n" for _, data in sorted(certificates))
