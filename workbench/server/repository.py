"""The models that a server serves, by name and version: ``<folder>/<name>/<version>/model.onnx``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from workbench.server.errors import RequestError, ServerError
from workbench.server.model import Model


class Repository:
    """Loaded models. Where a request names no version, the highest one answers."""

    def __init__(self, models: Mapping[str, Mapping[str, Model]]) -> None:
        self._models = {
            name: {version: versions[version] for version in sorted(versions, key=_by_number)}
            for name, versions in models.items()
        }

    def get(self, name: str, version: str | None = None) -> Model:
        """The model; RequestError 404 where there is none."""
        versions = self._models.get(name)
        if versions is None:
            raise RequestError(404, f"there is no model {name!r} here; there is {', '.join(self._models)}")
        model = next(reversed(versions.values())) if version is None else versions.get(version)
        if model is None:
            raise RequestError(404, f"model {name!r} has no version {version!r}; it has {', '.join(versions)}")
        return model

    def versions(self, name: str) -> list[str]:
        """The versions of a model, lowest first."""
        return list(self._models[name])

    def __iter__(self) -> Iterator[Model]:
        for versions in self._models.values():
            yield from versions.values()


def find_models(folder: Path) -> dict[str, dict[str, Path]]:
    """The model files below ``folder`` by name and version; ServerError where there are none."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*/*/model.onnx")):
        version = path.parent
        found.setdefault(version.parent.name, {})[version.name] = path
    if not found:
        raise ServerError(
            f"There is no model below {folder}.", "Put one at <name>/<version>/model.onnx, or set WORKBENCH_MODELS."
        )
    return found


def load_models(
    files: Mapping[str, Mapping[str, Path]], threads: int, log: Callable[[str], None] = lambda _: None
) -> Repository:
    """Load and warm up every file of ``files`` (paths by name and version)."""
    loaded: dict[str, dict[str, Model]] = {}
    for name, versions in files.items():
        if not name or quote(name, safe="") != name:
            raise ServerError(f"{name!r} cannot name a model.", "Use letters, digits, '-', '_' and '.'.")
        for version, path in versions.items():
            model = Model(name, version, path, threads)
            trouble = model.warm_up()
            if trouble:
                log(f"no warm-up on zeros: {trouble}")
            loaded.setdefault(name, {})[version] = model
    return Repository(loaded)


def _by_number(version: str) -> tuple[int, str]:
    return (int(version), version) if version.isdecimal() else (-1, version)
