"""A recording of the example run, and the real time of tests that play it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
from example_run import run_events

from workbench.events import AnyEvent
from workbench.recording import Answered, Manifest, Recording, unpack

ROOT = Path(__file__).parents[2]
RUN = "20261124-100000.000-digits-aaaa"
RECIPE = (ROOT / "recipes/digits.yaml").read_text().replace("  dynamic:", "  int8-dynamic:")
ANSWERS = (
    Answered(
        words=("validate", "recipes/digits.yaml", "--stdin", "--json"),
        exit_code=0,
        stdout='[{"valid": true, "problems": []}]',
        stderr="",
    ),
    Answered(words=("dockerfile", "recipes/digits.yaml"), exit_code=0, stdout="FROM scratch\n", stderr=""),
    Answered(
        words=("image", "recipes/digits.yaml", "--json"),
        exit_code=0,
        stdout=json.dumps({"config": "sha256:" + "ab" * 32, "run": RUN, "layers": [], "biggest": []}),
        stderr="",
        after="image",
    ),
)


def sample(time: float, count: int) -> str:
    values = {"series": "image-0", "histogram": [[1_000_000, count]]}
    return json.dumps({"time": time, "step": "benchmark/alone", "kind": "latency", "values": values}) + "\n"


def recording(
    folder: Path, found: Iterable[AnyEvent] = (), notes: tuple[str, ...] = (), samples: str = ""
) -> Recording:
    """A recording of the example run, of an event a second."""
    told = list(found) or run_events()
    manifest = Manifest(
        recording=1, workbench="0.1.0", run=RUN, recipe="recipes/digits.yaml", notes=notes, answers=ANSWERS
    )
    parts = {
        "recording.json": msgspec.json.encode(manifest),
        "events.jsonl": b"".join(msgspec.json.encode(event) + b"\n" for event in told),
        "samples.jsonl": samples.encode(),
        "logs/int8-quantize.txt": b"calibrating\nquantized\n",
        "recipe.yaml": RECIPE.encode(),
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "example.workbench-run", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return unpack(folder / "example.workbench-run", folder / "opened")


class Time:
    """Real time that goes on when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now
