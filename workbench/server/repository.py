"""The models that a server serves, by name and version: ``<folder>/<name>/<version>/model.onnx``."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from workbench.server.batcher import Batcher, Limits
from workbench.server.devices import Device
from workbench.server.errors import RequestError, ServerError
from workbench.server.exchange import current
from workbench.server.heap import give_back, loading_model
from workbench.server.meter import Meter
from workbench.server.model import Model

if TYPE_CHECKING:
    from workbench.server.input_stats import InputStatistics

Log = Callable[[str], None]


class Traffic(msgspec.Struct, forbid_unknown_fields=True):
    """How requests that name no version are spread. ``traffic``: weights by version; ``shadow``: a version that gets a
    copy of each, whose answer nobody sees; ``versions``: those to load, all where it is None."""

    traffic: dict[str, int] = {}
    shadow: str | None = None
    versions: list[str] | None = None


class Split:
    """Spreads requests over versions by weight, evenly in time (smooth weighted round robin, as nginx has it)."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = {version: weight for version, weight in weights.items() if weight > 0}
        self._sum = sum(self._weights.values())
        self._credit = dict.fromkeys(self._weights, 0)

    def next(self) -> str:
        """The version of the next request."""
        if len(self._credit) == 1:
            return next(iter(self._credit))
        for version, weight in self._weights.items():
            self._credit[version] += weight
        chosen = max(self._credit, key=lambda version: self._credit[version])
        self._credit[chosen] -= self._sum
        return chosen

    def any(self) -> str:
        """A version of those that share the requests."""
        return next(reversed(self._weights))


class Served:
    """One model: its loaded versions, lowest first, and how requests are spread over them.

    RequestError 400 where those that share requests take or give different tensors.
    """

    def __init__(self, versions: Mapping[str, Batcher], traffic: Traffic) -> None:
        sharing = [versions[version].model for version in {*traffic.traffic, *filter(None, [traffic.shadow])}]
        if any((each.inputs, each.outputs) != (sharing[0].inputs, sharing[0].outputs) for each in sharing):
            raise RequestError(400, f"the versions of {sharing[0].name!r} that share requests differ in their tensors")
        self.versions = {version: versions[version] for version in sorted(versions, key=_by_number)}
        self.shadow = self.versions[traffic.shadow] if traffic.shadow else None
        self.split = Split(traffic.traffic or {next(reversed(self.versions)): 1})


class Repository:
    """Loaded models. Where a request names no version, the highest one answers, or those that share the traffic."""

    def __init__(self, loader: Loader, models: Mapping[str, Served], folder: Path | None = None) -> None:
        self._loader = loader
        self._models = dict(models)
        self._folder = folder
        # By names as clients say them: each is kept only while somebody holds it or waits for it.
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loading = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()

    # --- answering

    def get(self, name: str, version: str | None = None) -> Batcher:
        """The version that answers; RequestError 404 where there is none."""
        served = self.served(name)
        found = served.versions.get(served.split.next() if version is None else version)
        if found is None:
            raise RequestError(404, f"model {name!r} has no version {version!r}; it has {', '.join(served.versions)}")
        exchange = current.get()
        if exchange is not None:
            exchange.model, exchange.version = name, found.model.version
        return found

    def look_up(self, name: str, version: str | None = None) -> Batcher:
        """As ``get``, for a request that is no inference: it takes no turn in the split of the traffic."""
        served = self.served(name)
        return self.get(name, served.split.any() if version is None else version)

    def served(self, name: str) -> Served:
        """The model; RequestError 404 where there is none."""
        found = self._models.get(name)
        if found is None:
            raise RequestError(404, f"there is no model {name!r} here; there is {', '.join(self._models) or 'none'}")
        return found

    def chosen(self, name: str | None = None, version: str | None = None) -> list[Batcher]:
        """All versions of all models, those of one model, or one of them; RequestError 404 where there is none such."""
        if name is None:
            return list(self)
        return list(self.served(name).versions.values()) if version is None else [self.look_up(name, version)]

    def names(self) -> list[str]:
        """The models that are loaded."""
        return list(self._models)

    def __iter__(self) -> Iterator[Batcher]:
        for served in self._models.values():
            yield from served.versions.values()

    # --- changing, while requests are answered

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Every version that is loaded (with ``ready`` only those) or lies in the folder, as the protocol's repository
        extension lists them."""
        states = {(each.model.name, each.model.version): "READY" for each in self}
        if self._folder is not None and not ready:
            for name, versions in _files(self._folder).items():
                for version in versions:
                    states.setdefault((name, version), "UNAVAILABLE")
        return [
            {"name": name, "version": version, "state": state, "reason": "" if state == "READY" else "not loaded"}
            for (name, version), state in sorted(states.items())
        ]

    async def load(self, name: str, traffic: Traffic | None = None) -> None:
        """Loads the versions of a model that lie in the folder, anew those of which a file is another, and drops the
        rest.

        Requests are answered by those from before until all is loaded, and nothing changes where something fails.
        Raises RequestError 400 where a model or ``traffic`` is not usable, 404 where the folder has no such model.
        """
        await self._change(name, partial(self._load, name, traffic or Traffic()))

    async def unload(self, name: str) -> None:
        """Takes a model out of service; returns when what was asked of it has been answered. 404 as for ``get``."""
        await self._change(name, partial(self._unload, name))

    async def _change(self, name: str, change: Callable[[], Awaitable[None]]) -> None:
        """Carries out a change of a model, one at a time, to its end: a thread that loads one cannot be stopped, and
        who did not wait for it and asks again is to find it loaded, not to have it loaded once more beside."""

        async def to_the_end() -> None:
            async with self._lock(name):
                await change()
                await _give_back()

        task = asyncio.create_task(to_the_end())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _load(self, name: str, traffic: Traffic) -> None:
        files = _files(self._folder).get(name, {}) if self._folder is not None else {}
        if not files:
            raise RequestError(404, f"the folder of models has no {name!r}")
        wanted = traffic.versions if traffic.versions is not None else list(files)
        _check(traffic, wanted, files)
        before = self._models[name].versions if name in self._models else {}
        kept = {version: before[version] for version in wanted if self._loader.is_of(before, version, files)}
        loop = asyncio.get_running_loop()
        try:
            for version in wanted:
                if version not in kept:
                    load = partial(self._loader.load, name, version, files[version])
                    async with self._loading:  # one at a time: two would take each other's cores
                        kept[version] = await loop.run_in_executor(None, load)
        except ServerError as error:
            raise RequestError(400, str(error)) from None
        self._models[name] = Served(kept, traffic)
        await _drained(each for version, each in before.items() if kept.get(version) is not each)

    async def _unload(self, name: str) -> None:
        served = self.served(name)
        del self._models[name]
        await _drained(served.versions.values())

    async def close(self) -> None:
        """Waits for what is still computed, though nobody waits for it, and hands it over."""
        await asyncio.get_running_loop().run_in_executor(None, self._loader.close)
        await asyncio.sleep(0)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._changing.setdefault(name, asyncio.Lock())


class Loader:
    """Loads model files with ``threads`` intra-op threads on ``device``; all share one thread for slow runs."""

    def __init__(
        self,
        threads: int,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        device: Device = Device(),  # noqa: B008 - frozen
        log: Log = lambda _: None,
        follow: Callable[[InputStatistics], None] | None = None,
    ) -> None:
        """``follow``: statistics of inputs are wanted, and this has them absorbed (see input_stats)."""
        self._follow = follow
        self._threads = threads
        self._limits = limits
        self._device = device
        self._log = log
        # One thread: a second run at the same time would take the first one's cores.
        self._pool = ThreadPoolExecutor(1, "inference")
        # By what was loaded, not by name: what is loaded may never come to serve, for another version fails.
        self._stamps: WeakKeyDictionary[Batcher, object] = WeakKeyDictionary()

    def load(self, name: str, version: str, path: Path) -> Batcher:
        """A model, warmed up; ServerError where it cannot be loaded."""
        if not name or quote(name, safe="") != name:
            raise ServerError(f"{name!r} cannot name a model.", "Use letters, digits, '-', '_' and '.'.")
        begun = time.perf_counter()
        stamp = _stamp(path)
        with loading_model():
            model = Model(name, version, path, self._threads, self._device)
            trouble = model.warm_up(self._limits.rows)
        meter = Meter()
        meter.load_seconds = time.perf_counter() - begun
        statistics = None
        if self._follow is not None:
            from workbench.server.input_stats import InputStatistics

            statistics = InputStatistics(model.inputs, model.outputs, path.parent, self._follow)
        joins = f"joins up to {model.joins} rows" if model.joins > 1 else "joins no requests"
        if model.undecided:
            joins = "how many rows it joins is found out in service"
        told = f"no warm-up on zeros: {trouble}" if trouble else f"{joins}, {model.row_seconds * 1e3:.3g} ms a row"
        self._log(f"loaded {name}/{version} in {meter.load_seconds:.2f} s {model.runs_on}; {told}")
        loaded = Batcher(model, self._limits, self._pool, meter, statistics)
        self._stamps[loaded] = stamp
        return loaded

    def close(self) -> None:
        """Returns when nothing is computed any more, and nothing will be."""
        self._pool.shutdown(cancel_futures=True)

    def load_all(self, files: Mapping[str, Mapping[str, Path]], traffic: Mapping[str, Traffic]) -> dict[str, Served]:
        """Every file of ``files`` (paths by name and version); ServerError where one, or ``traffic``, is not usable."""
        if unknown := [name for name in traffic if name not in files]:
            raise ServerError(
                f"WORKBENCH_TRAFFIC names {unknown[0]!r}, of which there is no model.", f"There is {', '.join(files)}."
            )
        found = {}
        for name, versions in files.items():
            spread = traffic.get(name, Traffic())
            wanted = spread.versions if spread.versions is not None else list(versions)
            try:
                _check(spread, wanted, versions)
                loaded = {version: self.load(name, version, versions[version]) for version in wanted}
                found[name] = Served(loaded, spread)
            except RequestError as error:
                raise ServerError(f"WORKBENCH_TRAFFIC is not usable: {error.message}.") from None
        return found

    def is_of(self, before: Mapping[str, Batcher], version: str, files: Mapping[str, Path]) -> bool:
        """Whether a version that is loaded is still what lies there."""
        loaded = before.get(version)
        return loaded is not None and self._stamps.get(loaded) == _stamp(files[version])


def find_models(folder: Path) -> dict[str, dict[str, Path]]:
    """The model files below ``folder`` by name and version; ServerError where there are none."""
    found = _files(folder)
    if not found:
        raise ServerError(
            f"There is no model below {folder}.", "Put one at <name>/<version>/model.onnx, or set WORKBENCH_MODELS."
        )
    return found


def _files(folder: Path) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*/*/model.onnx")):
        version = path.parent
        found.setdefault(version.parent.name, {})[version.name] = path
    return found


def _check(traffic: Traffic, wanted: Iterable[str], files: Mapping[str, Any]) -> None:
    wanted = list(wanted)
    named = [*wanted, *traffic.traffic, *([traffic.shadow] if traffic.shadow else [])]
    for version in named:
        if version not in files or version not in wanted:
            raise RequestError(400, f"there is no version {version!r} to load; there is {', '.join(files)}")
    if not wanted:
        raise RequestError(400, "no version is to be loaded; unload the model instead")
    weights = traffic.traffic.values()
    if any(weight < 0 for weight in weights) or weights and not any(weights):
        raise RequestError(400, "the weights of traffic are whole numbers, none below 0 and one above")


def _stamp(path: Path) -> object:
    """What is another once a file beside the model, such as that of its weights, or its own is another."""
    try:
        with os.scandir(path.parent) as entries:
            files = sorted(((each.name, each.stat()) for each in entries if each.is_file()), key=lambda each: each[0])
    except OSError:
        return None
    return [(name, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size) for name, found in files]


async def _drained(batchers: Iterable[Batcher]) -> None:
    for batcher in batchers:
        await batcher.drained()


async def _give_back() -> None:
    """What was dropped before goes back to the system."""
    await asyncio.get_running_loop().run_in_executor(None, give_back)


def _by_number(version: str) -> tuple[int, str]:
    return (int(version), version) if version.isdecimal() else (-1, version)
