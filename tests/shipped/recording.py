"""Makes the recording that ``workbench play`` shows: of a real run of the shipped digits, in a project of its own.

The store is empty, so every step is seen at work. Figures in it are of the machine that it was made on; where other
processes disturbed it, the run says so, and it is better made again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from support import ROOT

FILE = ROOT / "assets" / "recordings" / "digits.workbench-run"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "digits"
        _workbench("demo", str(project), folder=ROOT)
        FILE.parent.mkdir(exist_ok=True)
        _workbench("record", "-o", str(FILE), folder=project)
    print(f"{FILE.relative_to(ROOT)}: {FILE.stat().st_size} bytes")


def _workbench(*words: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-P", "-m", "workbench", *words], cwd=folder, check=True)


if __name__ == "__main__":
    main()
