"""What a face shows of runs: frozen snapshots, made by one thread (screens.feed) and painted by the widgets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from screens.samples import Samples
from workbench.events import RunState


@dataclass(frozen=True)
class RunView:
    """A run as it stands: its folder, its state, and the time (seconds since the epoch) that its clocks show."""

    folder: Path
    state: RunState
    now: float
    samples: Samples = field(default_factory=Samples)

    @property
    def live(self) -> bool:
        """Whether more is to come."""
        return self.state.status == "running"

    def log(self, step: str) -> Path:
        """Where the raw output of a step lies."""
        return self.folder / "logs" / f"{step.replace('/', '-')}.txt"


@dataclass(frozen=True)
class ProjectView:
    """The runs of a project, newest first, as far as a list shows them."""

    runs: tuple[RunView, ...]
