"""apt in a private state folder: asks the machine's own sources without touching the machine, and needs no root.

What is taken from the machine: where its sources are (``/etc/apt``, or the user's own in ``WORKBENCH_APT_SOURCES`` or
the configuration folder of workbench), its keys, proxies and credentials. What is not: hooks, pins, other suites, the
leave to use unsigned sources. Nothing here writes down a host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import MachineLacks, UsageError
from workbench.image import tools

_TOOLS_CURE = "Install apt and dpkg (`apt-get install apt dpkg`, or your distribution's packages of these names)."
_KEPT_OPTIONS = ("Types", "URIs", "Signed-By", "Check-Valid-Until", "Check-Date", "Valid-Until-Max", "Components")
_NEVER_TAKEN = re.compile(r"^Acquire::(AllowInsecure|AllowWeak|AllowDowngrade|IndexTargets|Languages|Check-Signature)")
_UNSIGNED = re.compile(
    r"NO_PUBKEY|not signed|EXPKEYSIG|BADSIG|INVALIDSIG|signatures? (?:couldn't|were) ", re.IGNORECASE
)


@dataclass(frozen=True)
class Source:
    """One package source: its options by deb822 name, ``URIs`` and ``Suites`` among them, and the file it stands in."""

    fields: Mapping[str, str]
    file: Path

    def limited_to(self, suite: str) -> Source | None:
        """What of this source serves Debian's ``suite``, its updates and security fixes; None if nothing."""
        if self.fields.get("Enabled", "yes").strip().lower() in ("no", "false", "0"):
            return None
        wanted = {suite, f"{suite}-updates", f"{suite}-security", f"{suite}/updates"}
        suites = [name for name in self.fields.get("Suites", "").split() if name in wanted]
        # Other makers name their suites after Debian's as well; only Debian has a component "main" and these suites.
        if "deb" not in self.fields.get("Types", "").split() or not suites:
            return None
        if "main" not in self.fields.get("Components", "").split():
            return None
        kept = {name: self.fields[name] for name in _KEPT_OPTIONS if name in self.fields}
        return Source({**kept, "Types": "deb", "Suites": " ".join(suites), "Components": "main"}, self.file)

    def as_text(self) -> str:
        """The source as a deb822 paragraph."""
        return "".join(f"{name}: {value}\n" for name, value in sorted(self.fields.items()))


def parse_deb822(text: str, file: Path) -> list[Source]:
    """The paragraphs of a ``.sources`` file."""
    sources = []
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", lines):
        fields: dict[str, str] = {}
        last = ""
        for line in paragraph.splitlines():
            if line[:1] in (" ", "\t") and last:
                fields[last] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                last = _deb822_name(name.strip())
                fields[last] = value.strip()
        if fields:
            sources.append(Source(fields, file))
    return sources


def _deb822_name(name: str) -> str:
    known = {option.lower(): option for option in (*_KEPT_OPTIONS, "Suites", "Enabled")}
    return known.get(name.lower(), name)


_ONE_LINE = re.compile(
    r"^\s*(deb)\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>[^#]*)"
)


def parse_list(text: str, file: Path) -> list[Source]:
    """The lines of a ``sources.list`` file."""
    sources = []
    for line in text.splitlines():
        found = _ONE_LINE.match(line)
        if found is None:
            continue
        fields = {"Types": "deb", "URIs": found["uri"], "Suites": found["suite"], "Components": found["components"]}
        for option in (found["options"] or "").split():
            name, _, value = option.partition("=")
            fields[_deb822_name(name)] = value
        sources.append(Source(fields, file))
    return sources


def _source_files() -> list[Path]:
    import platformdirs

    chosen = os.environ.get("WORKBENCH_APT_SOURCES")
    own = Path(chosen) if chosen else Path(platformdirs.user_config_dir("workbench")) / "apt"
    if chosen and not own.exists():
        raise UsageError(f"WORKBENCH_APT_SOURCES names {chosen}, which does not exist.", "Name a file or a folder.")
    files = [own] if own.is_file() else sorted(own.glob("*.sources")) + sorted(own.glob("*.list"))
    if chosen:
        return files
    system = Path("/etc/apt")
    parts = system / "sources.list.d"
    machine = [system / "sources.list", *sorted(parts.glob("*.sources")), *sorted(parts.glob("*.list"))]
    return files + [file for file in machine if file.is_file()]


def sources_for(suite: str) -> list[Source]:
    """The sources of this machine that serve Debian's ``suite``. Raises MachineLacks where there is none."""
    sources = []
    for file in _source_files():
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except PermissionError:
            continue  # a source with a password in it, for root's eyes; another may serve
        parse = parse_deb822 if file.suffix == ".sources" else parse_list
        sources += [limited for source in parse(text, file) if (limited := source.limited_to(suite))]
    if not sources:
        raise MachineLacks(
            f"No package source of this machine serves Debian {suite}.",
            f"Write one (Types: deb, URIs: your Debian mirror, Suites: {suite}, Components: main, "
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg) to ~/.config/workbench/apt/debian.sources; "
            "the keyring is in the package debian-archive-keyring.",
        )
    return sources


class Apt:
    """apt over ``sources`` with all its state below ``folder``, for ``arch`` (Debian's name, such as ``amd64``)."""

    def __init__(self, folder: Path, suite: str, arch: str) -> None:
        self.suite = suite
        self.sources = sources_for(suite)
        self.folder = folder.resolve()
        for name in ("lists/partial", "cache/archives/partial", "etc/parts", "etc/sources", "etc/preferences"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").write_bytes(b"")
        text = "\n".join(source.as_text() for source in self.sources)
        sources = self.folder / "etc/sources/debian.sources"
        sources.touch(mode=0o600)  # a URI may hold a password
        sources.write_text(text)
        config = self.folder / "apt.conf"
        config.touch(mode=0o600)
        config.write_text(self._config(arch))
        self._env = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C", "LANGUAGE": "C"}

    def _config(self, arch: str) -> str:
        """The machine's ways to reach its sources, then all that makes this apt a private one."""
        dump = tools.run([tools.found("apt-config", _TOOLS_CURE), "dump"], {**os.environ, "LC_ALL": "C"})
        taken = [line for line in dump.stdout.splitlines() if line.startswith("Acquire::")]
        lines = [line for line in taken if not _NEVER_TAKEN.match(line)]
        settings = {
            "APT::Architecture": arch,
            "APT::Architectures": arch,
            # As root apt would become the user _apt, who cannot enter this folder.
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowWeakRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            # Hooks of the machine (shell commands) stand in these two.
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": str(self.folder / "etc/parts"),
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": str(self.folder / "etc/sources"),
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": str(self.folder / "etc/preferences"),
            "Dir::State": str(self.folder),
            "Dir::State::lists": str(self.folder / "lists"),
            "Dir::State::status": str(self.folder / "status"),
            "Dir::Cache": str(self.folder / "cache"),
        }
        return "\n".join([*lines, *(f'{name} "{value}";' for name, value in settings.items())]) + "\n"

    def update(self) -> None:
        """Fetches the signed package lists. Raises MachineLacks where they cannot be had or not be verified."""
        done = tools.run([tools.found("apt-get", _TOOLS_CURE), "-qq", "update"], self._env)
        if done.returncode == 0:
            return
        names = ", ".join(sorted({str(source.file) for source in self.sources}))
        if _UNSIGNED.search(done.stderr):
            raise MachineLacks(
                f"apt cannot verify the signature of Debian {self.suite} (sources in {names}).",
                "Install the package debian-archive-keyring and name it in that source: "
                "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg",
            )
        raise MachineLacks(
            f"apt cannot fetch the package lists of Debian {self.suite} (sources in {names}): "
            f"{tools.last_words(done.stderr, 3)}",
            "See that `apt-get update` works on this machine, then run the same command again.",
        )

    def candidates(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """The fields of the version that apt would install, by package. Raises UsageError for a name it does not
        have."""
        found: dict[str, dict[str, str]] = {}
        for fields in self._show("--no-all-versions", names):
            found.setdefault(fields["Package"], fields)
        missing = sorted(set(names) - set(found))
        if missing:
            raise UsageError(
                f"Debian {self.suite} has no package {', '.join(missing)}.", "Correct the recipe's image.base.packages."
            )
        return found

    def served(self, names: Sequence[str]) -> dict[tuple[str, str], set[str]]:
        """The sha256 of all that the sources have of these packages, by name and version."""
        found: dict[tuple[str, str], set[str]] = {}
        for fields in self._show("--all-versions", names):
            found.setdefault((fields["Package"], fields["Version"]), set()).add(fields["SHA256"])
        return found

    def _show(self, versions: str, names: Sequence[str]) -> list[dict[str, str]]:
        done = tools.run([tools.found("apt-cache", _TOOLS_CURE), "show", versions, "--", *names], self._env)
        return [dict(paragraph.fields) for paragraph in parse_deb822(done.stdout, Path("Packages"))]

    def download(self, packages: Sequence[tuple[str, str]], folder: Path) -> list[Path]:
        """The .deb files of packages (name and version), fetched into ``folder`` from wherever the lists say that they
        lie, their content checked by apt. Raises MachineLacks where one cannot be had."""
        wanted = [f"{name}={version}" for name, version in packages]
        done = tools.run([tools.found("apt-get", _TOOLS_CURE), "-qq", "download", *wanted], self._env, cwd=folder)
        if done.returncode:
            raise MachineLacks(
                f"apt cannot fetch packages of Debian {self.suite}: {tools.last_words(done.stderr, 3)}",
                "See that `apt-get update` works on this machine, then run the same command again.",
            )
        return sorted(folder.glob("*.deb"))
