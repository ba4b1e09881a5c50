"""``workbench new``: a first recipe for a model, with comments to learn from: the reason of each choice."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench import advise, document, recipe
from workbench.advise import Choice
from workbench.errors import UsageError
from workbench.fitting import Fitting, beside, for_calibration, for_evaluation, look
from workbench.project import project_of
from workbench.recipe_text import recipe_text, yaml_value

_MISSING = "evaluate.npz"
"""What the evaluation data is called where there is none yet, beside the model."""


@dataclass(frozen=True)
class Draft:
    """A recipe that is not written yet. ``lacks`` says what is to be made before it can run; "" where nothing is."""

    path: Path
    text: str
    choices: tuple[Choice, ...]
    lacks: str

    @property
    def shown(self) -> str:
        """Where the recipe goes, as one would type it here."""
        return _shown(self.path)

    def as_json(self, *, written: bool) -> dict[str, Any]:
        """The draft for programs."""
        choices = [asdict(choice) for choice in self.choices]
        return {
            "recipe": self.shown,
            "written": written,
            "text": self.text,
            "choices": choices,
            "lacks": self.lacks,
        }


def draft(
    model: Path,
    *,
    evaluate: Path | None = None,
    calibrate: Path | None = None,
    name: str = "",
    output: Path | None = None,
    force: bool = False,
) -> Draft:
    """A recipe for ``model``, with the data that is named or lies beside it. Nothing is written.

    It goes to ``output``, else to ``recipes/NAME.yaml`` of this folder's project. Raises UsageError for a model that
    cannot be read or lies outside the project, for data that does not fit it, and for a recipe that is there already,
    but for ``force``.
    """
    from workbench.model.inspect import inspect

    project = project_of(output or Path.cwd() / "here")
    source = _inside(model, project)
    name = _checked(name) if name else _legal(model.stem)
    path = _free(output or project / "recipes" / f"{name}.yaml", name, force=force)
    summary = inspect(project / source)
    data, others = _data(project, source, summary["signature"], evaluate, calibrate)
    choices = tuple(_choices(name, source, summary, data, others))
    text = recipe_text(choices, _hints(summary, data[0]), model.name, path.relative_to(project).as_posix())
    lacks = "" if data[0] else _inside_of(source, _MISSING)
    _check(text, path, lacks)
    return Draft(path, text, choices, lacks)


def write(found: Draft, *, force: bool = False) -> None:
    """Writes the recipe. Raises UsageError where one has come to be there meanwhile, MachineLacks where it cannot."""
    from workbench.store import unwritable, write_atomically

    _free(found.path, found.path.stem, force=force)
    try:
        found.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(found.path, error) from error
    write_atomically(found.path, found.text.encode())


def _inside(file: Path, project: Path) -> str:
    """The file's path relative to the project. Raises UsageError where it is not there, or outside."""
    if not file.is_file():
        raise UsageError(f"There is no file {file}.", "Name an ONNX model, and data as .npz files.")
    found = file.parent.resolve() / file.name
    if not found.is_relative_to(project):
        there = project / "models"
        words = f"mkdir -p {shlex.quote(_shown(there))} && cp {shlex.quote(str(found))} {shlex.quote(_shown(there))}/"
        raise UsageError(
            f"{file} lies outside the project {project}, so a recipe there could not be carried out by others.",
            f"Copy it in (with the files of its weights, if it has any), then name the copy: {words}",
        )
    relative = found.relative_to(project).as_posix()
    if not relative.isprintable():
        raise UsageError(f"The name of {relative!r} is not plain text.", "Rename it.")
    return relative


def _inside_of(source: str, name: str) -> str:
    return (Path(source).parent / name).as_posix()


def _legal(stem: str) -> str:
    """A recipe's name made of a file's."""
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-")[:63]
    return name or "model"


def _checked(name: str) -> str:
    if _legal(name) != name:
        raise UsageError(
            f"{name} cannot be a recipe's name: it has lower-case letters, digits, '.', '_' and '-'.",
            f"Write for example --name {_legal(name)}",
        )
    return name


def _free(path: Path, name: str, *, force: bool) -> Path:
    if path.suffix != ".yaml" or path.name.endswith(".lock.yaml"):
        raise UsageError(f"{path} cannot be a recipe: its name must end in .yaml.", f"Write -o recipes/{name}.yaml")
    if path.exists() and not force:
        raise UsageError(
            f"{_shown(path)} is there already.", f"Take another name (--name {name}-2), or overwrite it with --force."
        )
    return path.resolve()


def _shown(path: Path) -> str:
    """The path as one would type it here."""
    return os.path.relpath(path)


def _data(
    project: Path, source: str, signature: Mapping[str, Any], evaluate: Path | None, calibrate: Path | None
) -> tuple[tuple[Fitting | None, Fitting | None], list[str]]:
    """What to score on and what to take ranges from, named or found; and why the other files beside do not fit."""
    named = [look(project, _inside(each, project), signature) if each else None for each in (evaluate, calibrate)]
    if all(named):
        return (named[0], named[1]), []
    found, others = beside(project, (project / source).parent, signature)
    free = [each for each in found if each.path not in [given.path for given in named if given]]
    scored = named[0] or for_evaluation(free)
    return (scored, named[1] or for_calibration(free, scored)), others


def _choices(
    name: str,
    source: str,
    summary: Mapping[str, Any],
    data: tuple[Fitting | None, Fitting | None],
    others: Sequence[str],
) -> Iterator[Choice]:
    from workbench.model.signature import in_words

    signature = summary["signature"]
    ends = [", ".join(map(in_words, signature[role])) for role in ("inputs", "outputs")]
    evaluate, calibrate = data
    yield Choice("name", yaml_value(name), "")
    yield Choice("model.source", yaml_value(source), f"{ends[0]} -> {ends[1]}.")
    if evaluate is None:
        yield _to_be_made(source, signature, others)
    else:
        labelled = "" if evaluate.labels is None else " with labels"
        why = f"{evaluate.samples} samples{labelled}, to score and time every variant on."
        yield Choice("data.evaluate", yaml_value(evaluate.path), why)
    if calibrate is not None:
        why = f"{calibrate.samples} samples that the ranges of 8-bit activations are taken from."
        yield Choice("data.calibrate", yaml_value(calibrate.path), why)
    judged = advise.metric(signature, evaluate)
    yield judged
    yield from advise.variants(summary, calibrate)
    if (gate := advise.gate(judged.value, evaluate)) is not None:
        yield gate
    yield Choice("choose", "{minimize: p50}", "Of those that keep the gate, the fastest. Or p99, size, metric_drop.")
    yield advise.builder()
    yield Choice("image.base", "{debian: bookworm}", "Assembled from Debian's packages, which the lock pins.")
    yield advise.limits(summary)
    yield from advise.benchmarks(summary)
    yield Choice("push", '{to: "oci:.workbench/registry"}', "A folder here. Or registry.example.com/team/name:1.0")


def _to_be_made(source: str, signature: Mapping[str, Any], others: Sequence[str]) -> Choice:
    """The evaluation data that there is not, with how to make it."""
    path = _inside_of(source, _MISSING)
    arrays = ", ".join(
        f"{each['name'] if each['name'].isidentifier() else 'x'}=..." for each in signature["inputs"][:4]
    )
    lines = [
        "To be made: no .npz file beside the model has samples for it.",
        *(f"({why})" for why in others[:3]),
        "An array for each input, samples along its first axis, and labels y:",
        f"    numpy.savez({path!r}, {arrays}, y=...)",
        "Then workbench new --force looks at it, and chooses by what is in it.",
    ]
    return Choice("data.evaluate", yaml_value(path), "\n".join(lines))


def _hints(summary: Mapping[str, Any], data: Fitting | None) -> dict[str, tuple[str, ...]]:
    """By section, what is for the user to decide, as comments."""
    found: dict[str, tuple[str, ...]] = {"gate": ("And if answers must come in time:", "p99: {of: variant, max: 5ms}")}
    inputs = summary["signature"]["inputs"]
    if len(inputs) == 1 and inputs[0]["dtype"].startswith("float"):
        found["model"] = advise.preprocessing(data)
    return found


def _check(text: str, path: Path, lacks: str) -> None:
    """Raises what validation finds; that the data is still to be made is no surprise."""
    try:
        recipe.check(document.parse(text, path), path)
    except UsageError as error:
        if not lacks or [each.where for each in error.problems] != ["data.evaluate"]:
            raise
