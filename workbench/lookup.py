"""What the store has for a step: shared by runs, which make what is missing, and dry runs, which only say so."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import UsageError
from workbench.plan import Input, Pinned, Ref, Refs, SourceFile, Step, ingredients, key_of
from workbench.steps import KINDS
from workbench.store import Result, Store, canonical, digest_of_bytes

Source = Ref | SourceFile | Pinned


def expanded(inputs: Mapping[str, Input], results: Mapping[str, Result]) -> dict[str, Source]:
    """The inputs of a step one by one: what takes every file of a kind is replaced by those files."""
    found: dict[str, Source] = {}
    for name, source in inputs.items():
        if isinstance(source, Refs):
            files = (file for file in results[source.step].files if file.startswith(source.prefix))
            found |= {file: Ref(source.step, file) for file in sorted(files)}
        else:
            found[name] = source
    return found


@dataclass(frozen=True)
class Lookup:
    """Looks steps up in ``store``. ``results`` has the results of the steps before, by step id."""

    project: Path
    store: Store
    machine: Mapping[str, Any]
    isa: str
    fresh: bool
    update: tuple[str, ...]
    fresh_figures: bool

    def ingredients(self, step: Step, results: Mapping[str, Result]) -> dict[str, str]:
        """What decides the result of ``step``, by name."""
        digests = {name: self.digest(source, results) for name, source in expanded(step.inputs, results).items()}
        return ingredients(step, digests, self.isa, canonical(self.machine["class"]).decode())

    def digest(self, source: Source, results: Mapping[str, Result]) -> str:
        match source:
            case Ref():
                return results[source.step].digest(source.output)
            case SourceFile():
                return self.project_digest(source.path)
            case Pinned():
                return digest_of_bytes(source.data)

    def path(self, source: Source, results: Mapping[str, Result]) -> Path:
        """The file a step reads for ``source``."""
        if isinstance(source, SourceFile):
            return self.project / source.path
        if isinstance(source, Pinned):
            self.store.put_bytes(source.data)
        return self.store.path(self.digest(source, results))

    def project_digest(self, path: str) -> str:
        """The digest of a project file. Raises UsageError where it cannot be read."""
        try:
            return self.store.source_digest(self.project / path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}.") from error

    def find(self, step: Step, found: Mapping[str, str], results: Mapping[str, Result]) -> Result | None:
        """The stored result of ``step`` with the ingredients ``found``, if there is one that may be taken."""
        nature = KINDS[step.kind].nature
        if nature == "effect":
            return None if self.fresh or self.fresh_figures else self._in_place(step, results)
        resolves_anew = step.kind.endswith("-resolve") and step.kind.removesuffix("-resolve") in self.update
        if self.fresh or resolves_anew or (nature == "figure" and self.fresh_figures):
            return None
        result = self.store.find(key_of(step.kind, found))
        if result is None or any(self.project_digest(path) != seen for path, seen in result.also_read.items()):
            return None
        return result

    def _in_place(self, step: Step, results: Mapping[str, Result]) -> Result | None:
        """What an effect comes to that is there already, if it is."""
        module, _, function = KINDS[step.kind].in_place.partition(":")
        if not module:
            return None
        inputs = {name: self.path(source, results) for name, source in expanded(step.inputs, results).items()}
        check = getattr(importlib.import_module(module), function)
        values = check(inputs, step.params, self.project, self.store.source_digest)
        return None if values is None else Result({}, values, {})
