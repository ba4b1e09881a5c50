"""The one thread that reads run folders for the app, and hands on what is new as frozen snapshots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from screens.samples import Samples, SampleSource
from screens.view import ProjectView, RunView
from workbench import runs
from workbench.events import EventReader, RunState, reduce

PERIOD_SECONDS = 0.25
"""Time between two looks: four repaints a second look alive, more would cost the machine that is measured on."""

LISTED = 30
"""Runs of a project that a list shows."""

View = RunView | ProjectView
_NO_SAMPLES = Samples()


class Source(Protocol):
    """Something that can be looked at again and again."""

    def advance(self) -> View | None:
        """How it stands now; None where nothing is new."""


class RunSource:
    """A run folder, followed while its run is at work."""

    def __init__(self, folder: Path, samples: SampleSource | None = None) -> None:
        """``samples`` are read along where they are to be shown."""
        self._folder = folder
        self._samples = samples
        self._events = EventReader(folder / "events.jsonl")
        self._state = RunState(run=folder.name)
        self._last: RunView | None = None
        self._ended = False

    def advance(self) -> RunView | None:
        """The run as it stands; None where nothing came and its clocks stand still."""
        if self._ended:
            return None
        state = self._read()
        # A folder without an event is one that has just been made, or never had a run: what comes is not missed.
        self._ended = state.status != "running" and state.seq >= 0
        last = self._last
        now = state.ended if self._ended else float(int(time.time()))
        samples = self._samples.advance() if self._samples else _NO_SAMPLES
        if last is not None and (last.state, last.now) == (state, now) and last.samples is samples:
            return None
        self._last = RunView(self._folder, state, now, samples)
        return self._last

    def _read(self) -> RunState:
        """What the events come to. A folder that cannot be read is a run that failed; the others are shown."""
        try:
            alive = runs.is_alive(self._folder)  # asked first: what it says before it goes is read below
            for event in self._events.new():
                self._state = reduce(self._state, event)
        except (OSError, msgspec.MsgspecError) as error:
            told = {"message": f"{self._folder} cannot be read: {error}", "cure": "See its events.jsonl."}
            return msgspec.structs.replace(self._state, status="failed", error=told)
        return runs.marked(self._state, alive)


class ProjectSource:
    """The newest runs of a project, those at work live."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._folder = runs.runs_folder(project)
        self._seen = -1
        self._sources: dict[str, RunSource] = {}
        self._views: dict[str, RunView] = {}

    def advance(self) -> ProjectView | None:
        """The runs as they stand; None where nothing is new."""
        changed = self._look()
        for name, source in self._sources.items():
            view = source.advance()
            if view is not None:
                self._views[name] = view
                changed = True
        if not changed:
            return None
        return ProjectView(tuple(self._views[name] for name in sorted(self._views, reverse=True)))

    def _look(self) -> bool:
        """Finds new runs; whether the folder of runs is another than at the last look."""
        try:
            modified = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            modified = 0
        if modified == self._seen:
            return False
        folders = {folder.name: folder for folder in runs.all_runs(self._project)[:LISTED]}
        # A run that has just been made has no request yet: the folder is looked at again.
        self._seen = modified if time.time_ns() - modified > 2e9 else -1
        changed = folders.keys() != self._sources.keys()
        self._sources = {name: self._sources.get(name) or RunSource(folder) for name, folder in folders.items()}
        self._views = {name: view for name, view in self._views.items() if name in folders}
        return changed or self._seen != -1


class Feed:
    """Looks at sources at a steady pace on a thread of its own and posts what is new. At most one of each kind."""

    def __init__(self, post: Callable[[View], object]) -> None:
        """``post`` is called on the feed's thread."""
        self._post = post
        self._sources: dict[str, Source] = {}
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def follow(self, kind: str, source: Source | None) -> None:
        """Looks at ``source`` from now on, in place of the one of the same ``kind``; at nothing where it is None."""
        sources = {**self._sources, kind: source}
        # Replaced whole: the thread goes over the one it has.
        self._sources = {name: each for name, each in sources.items() if each is not None}
        self.look()

    def look(self) -> None:
        """Looks at the sources at once."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            for source in self._sources.values():
                view = source.advance()
                if view is not None and not self._stopped and source in self._sources.values():
                    self._post(view)
            self._wake.wait(PERIOD_SECONDS if self._sources else None)
            self._wake.clear()
