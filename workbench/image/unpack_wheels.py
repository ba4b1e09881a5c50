"""The build stage of the Dockerfile: ``python -m workbench.image.unpack_wheels LOCKED WHEELS OMIT OUT CREATED``.

It runs on the plain Python of a base image, so it and what it imports need nothing but the standard library
(:data:`workbench.image.context.UNPACKING` names these modules). The wheels come out as the OCI builder packs them, for
the same code unpacks them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from workbench.errors import MachineLacks, StepFailed, WorkbenchError
from workbench.image.layers import PIECE, Entry, in_order
from workbench.image.omit import Omitted
from workbench.image.unwheel import Unpacked


def routes(proc: Path = Path("/proc/net")) -> list[str]:
    """The network devices that this process could reach others through."""
    found: set[str] = set()
    for name, device in (("route", 0), ("ipv6_route", -1)):
        path = proc / name
        lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
        found |= {line.split()[device] for line in lines if line.strip() and not line.startswith("Iface")}
    return sorted(found - {"lo"})


def refuse_network(proc: Path = Path("/proc/net")) -> None:
    """Raises MachineLacks where this stage was given a network: what goes in is locked, and lies here already."""
    if reached := routes(proc):
        raise MachineLacks(
            f"The build stage has a network ({', '.join(reached)}), and needs none.", "Build with --network=none."
        )


def write(entries: Iterable[Entry], out: Path, created: int) -> int:
    """Writes the entries below ``out`` with their modes and the time ``created``; how many files."""
    ordered = in_order(entries)
    for entry in ordered:
        path = out / entry.path
        if entry.kind == "folder":
            path.mkdir(parents=True)
        elif entry.open is not None:
            with entry.open() as source, path.open("xb") as file:
                while piece := source.read(PIECE):
                    file.write(piece)
        path.chmod(entry.mode)
    # Last, and deepest first: what is written into a folder changes its time.
    for entry in reversed(ordered):
        os.utime(out / entry.path, (created, created))
    return sum(entry.kind == "file" for entry in ordered)


def unpack(locked: Path, wheels: Path, omit: Path, out: Path, created: int) -> int:
    """Unpacks the wheels that ``locked`` names below ``out``; how many files. Raises StepFailed for any other wheel."""
    with Unpacked(Omitted.parse(omit.read_text(encoding="utf-8"))) as unpacked:
        for wheel in json.loads(locked.read_bytes()):
            path = wheels / wheel["filename"]
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != wheel["sha256"]:
                raise StepFailed(f"{path.name} has the sha256 {found}, and {wheel['sha256']} is locked.")
            unpacked.add(wheel["filename"], path)
        return write(unpacked.entries(), out, created)


def main(words: Sequence[str]) -> int:
    """The command; its exit code."""
    locked, wheels, omit, out, created = words
    try:
        refuse_network()
        files = unpack(Path(locked), Path(wheels), Path(omit), Path(out), int(created))
    except WorkbenchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{files} files unpacked\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
