"""The options that benches share."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path


def parser(about: str | None, parts: Collection[str], ground: Path) -> argparse.ArgumentParser:
    """That of a bench which can take some of its ``parts`` (``--only``), and makes what it needs in ``ground``."""

    def some(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in parts]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(parts)}")
        return names

    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--only", type=some, default=list(parts), help=f"some of {','.join(parts)}")
    found.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured")
    found.add_argument("--ground", type=Path, default=ground, help="where it makes what it needs")
    return found
