"""Where Python packages come from on this machine, said to pip and to uv alike.

pip has its configuration, uv its own, and neither reads the other's; users have set up one of them. What is set for
one is given to the other through its environment (not its arguments: addresses may hold passwords, and arguments are
seen by every process of the machine). Nothing of it is written down.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from workbench.errors import MachineLacks
from workbench.image import downloads, tools


@dataclass(frozen=True)
class Index:
    """A machine's configuration: addresses of indexes, places of links, trust."""

    url: str = ""
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    cert: str = ""
    trusted: tuple[str, ...] = ()

    def for_uv(self) -> dict[str, str]:
        """The environment of uv; what the user set for uv itself stays."""
        told = {
            "UV_DEFAULT_INDEX": self.url,
            "UV_INDEX": " ".join(self.extra),
            "UV_FIND_LINKS": ",".join(self.find_links),
            "UV_INSECURE_HOST": " ".join(self.trusted),
            "SSL_CERT_FILE": self.cert,
            # uv trusts a list of its own unless told to; the certificates of a corporate proxy are in the system's.
            "UV_SYSTEM_CERTS": "true",
            # pip looks in all indexes and takes the best version; the lock must name what pip then finds.
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_CACHE_DIR": str(downloads.cache_folder() / "uv"),
        }
        set_by_user = {name for name in told if os.environ.get(name)}
        if os.environ.get("UV_INDEX_URL"):
            set_by_user.add("UV_DEFAULT_INDEX")
        if os.environ.get("UV_EXTRA_INDEX_URL"):
            set_by_user.add("UV_INDEX")
        return {name: value for name, value in told.items() if value and name not in set_by_user}

    def local(self, filename: str) -> Iterator[Path]:
        """Files of that name in the folders among the links: such links carry no hash for pip to choose by."""
        for link in self.find_links:
            path = Path(unquote(urlsplit(link).path) if link.startswith("file:") else link) / filename
            if "://" not in link.removeprefix("file://") and path.is_file():
                yield path

    def for_pip(self) -> dict[str, str]:
        """The environment of pip; its own configuration files stay in force where this says nothing."""
        told = {
            "PIP_INDEX_URL": self.url,
            "PIP_EXTRA_INDEX_URL": " ".join(self.extra),
            "PIP_FIND_LINKS": " ".join(self.find_links),
            "PIP_NO_INDEX": "1" if self.no_index else "",
            "PIP_CERT": self.cert,
            "PIP_TRUSTED_HOST": " ".join(self.trusted),
        }
        return {name: value for name, value in told.items() if value}


def pip() -> list[str]:
    """The command that is pip. Raises MachineLacks."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    path = shutil.which("pip3") or shutil.which("pip")
    if path is None:
        raise MachineLacks("This machine has no pip.", f"Run: {sys.executable} -m ensurepip")
    return [path]


def parse_pip(listing: str) -> Index:
    """What ``pip config list`` says, as pip itself weighs it: environment over ``download`` over ``global``."""
    settings: dict[str, str] = {}
    for section in ("global", "download", ":env:"):
        for line in listing.splitlines():
            name, found, value = line.partition("=")
            if found and name.startswith(f"{section}."):
                settings[name.removeprefix(f"{section}.")] = str(ast.literal_eval(value))
    return Index(
        url=settings.get("index-url", ""),
        extra=tuple(settings.get("extra-index-url", "").split()),
        find_links=tuple(settings.get("find-links", "").split()),
        no_index=settings.get("no-index", "").lower() in ("1", "true", "yes", "on"),
        cert=settings.get("cert", ""),
        trusted=tuple(settings.get("trusted-host", "").split()),
    )


def with_uv(index: Index, env: Mapping[str, str]) -> Index:
    """``index`` with what only uv has been told, in the environment ``env``."""

    def addresses(*names: str) -> tuple[str, ...]:
        words = " ".join(env.get(name, "") for name in names).split()
        # An index may be given a name: name=address.
        return tuple(word.partition("=")[2] if "=" in word.partition("://")[0] else word for word in words)

    default = addresses("UV_DEFAULT_INDEX") or addresses("UV_INDEX_URL")
    links = tuple(filter(None, env.get("UV_FIND_LINKS", "").replace(",", " ").split()))
    return replace(
        index,
        url=default[0] if default else index.url,
        extra=addresses("UV_INDEX", "UV_EXTRA_INDEX_URL") or index.extra,
        find_links=links or index.find_links,
        no_index=index.no_index or env.get("UV_NO_INDEX", "").lower() in ("1", "true", "yes", "on"),
        trusted=tuple(env.get("UV_INSECURE_HOST", "").split()) or index.trusted,
    )


def of_this_machine() -> Index:
    """The configuration of this machine and user."""
    command = [*pip(), "--disable-pip-version-check", "config", "list"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineLacks(
            f"pip cannot read its configuration: {tools.redacted(tools.last_words(done.stderr, 1))}",
            "See what `pip config debug` says.",
        )
    return with_uv(parse_pip(done.stdout), os.environ)
