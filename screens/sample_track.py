"""The samples of a run that is over by time: the newest at any moment, found again fast however many there are."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from pathlib import Path

import msgspec

from screens.samples import Newest, Samples
from workbench.timeline import lines

SPACING = 64
"""Lines between two that are known by time: some 40 KB."""

SOUGHT_BYTES = 1 << 20
"""What is read before a moment that is sought: minutes of samples. In 19 hours of them a seek takes 0.1 s, measured."""


class _Line(msgspec.Struct):
    time: float
    kind: str = ""


class SampleTrack:
    """The samples at ``path`` by time; what is kept of them are the newest, as while a run is at work."""

    def __init__(self, path: Path) -> None:
        """Reads through the file, which need not be there. Raises UsageError where a line is longer than they are."""
        self._path = path
        self._times, self._offsets = array("d"), array("q")
        self.measured = array("d")
        """When latencies came, in seconds since the epoch."""
        self._offset, self._until, self._end = 0, 0.0, 0.0
        self._newest, self._last = Newest(), Samples()
        if path.exists():
            self._read()

    @property
    def end(self) -> float:
        """When the last sample was taken; 0 where there is none."""
        return self._end

    def at(self, time: float) -> Samples:
        """The newest samples at ``time``; the same object as long as none comes."""
        start = self._start(time)
        if time < self._until or start > self._offset:
            self._newest, self._last, self._offset = Newest(), Samples(), start
        came = False
        self._until = time
        for line in lines(self._path, self._offset) if self._times else ():
            if _time(line, 0.0) > time:
                break
            self._newest.take(line)
            self._offset += len(line)
            came = True
        if came:
            self._last = self._newest.samples()
        return self._last

    def _start(self, time: float) -> int:
        """Where to begin to read for ``time``: with enough before it for what is kept."""
        at = bisect_right(self._times, time)
        if not at:
            return 0
        return self._offsets[max(bisect_right(self._offsets, self._offsets[at - 1] - SOUGHT_BYTES) - 1, 0)]

    def _read(self) -> None:
        offset = 0
        for count, line in enumerate(lines(self._path)):
            self._end = max(self._end, _time(line, self._end))
            if count % SPACING == 0:
                self._times.append(self._end)
                self._offsets.append(offset)
            if b'"latency"' in line:
                self.measured.append(self._end)
            offset += len(line)


def _time(line: bytes, otherwise: float) -> float:
    try:
        return msgspec.json.decode(line, type=_Line).time
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return otherwise
