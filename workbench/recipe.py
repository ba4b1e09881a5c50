"""Reading a recipe: every problem at once, each with its line and cure.

Three steps: parse (:mod:`workbench.document`), validate (:mod:`workbench.schema`), check what needs the whole recipe
or the file system.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workbench.document import Document, Problem, Where, nearest, read, refuse
from workbench.edit import put, where_of
from workbench.errors import UsageError
from workbench.project import project_of
from workbench.registry.reference import check_destination
from workbench.schema import FORMAT, Recipe


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as it was read: its project, its path in it, and the settings that came from the command line."""

    recipe: Recipe
    project: Path
    path: Path
    overrides: tuple[str, ...] = ()

    @property
    def lock_path(self) -> Path:
        """Where the lock of this recipe lies: beside it."""
        return lock_path_of(self.path)


def lock_path_of(path: Path) -> Path:
    """Where the lock of the recipe at ``path`` lies."""
    return path.with_suffix(".lock.yaml")


def load(path: Path, overrides: Sequence[str] = ()) -> RecipeFile:
    """The valid recipe at ``path``, with ``overrides`` (``key.key=value``) applied.

    Raises RecipeError with every problem at once, each with its line, what is allowed and the nearest spelling.
    """
    return check(read(path), path, overrides)


def check(document: Document, path: Path, overrides: Sequence[str] = ()) -> RecipeFile:
    """As :func:`load`, for a ``document`` that need not stand at ``path`` yet."""
    for override in overrides:
        _override(document.data, override)
    problems: list[Problem] = []
    project = project_of(path)
    problems.extend(_file_problems(document, project))
    recipe = _validate(document, problems)
    if recipe is not None:
        problems.extend(_whole_problems(recipe, document))
    refuse(path, problems)
    assert recipe is not None
    return RecipeFile(recipe, project, path.resolve(), tuple(overrides))


_STAND_INS: dict[str, Any] = {
    "workbench": FORMAT,
    "name": "unnamed",
    "model": {"source": "unnamed"},
    "data": {"evaluate": "unnamed", "metric": "accuracy"},
}


def _validate(document: Document, problems: list[Problem]) -> Recipe | None:
    """The recipe; where it is not valid, what is left without the invalid values, so that the whole is checked too."""
    try:
        return Recipe.model_validate(document.data)
    except ValidationError as error:
        problems.extend(_problems(error, document))
    data = copy.deepcopy(document.data)
    for _ in range(4):
        try:
            return Recipe.model_validate(data)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                where = _spelled(item["loc"], document.data)
                _remove(data, where[:-1] if item["type"] == "missing" else where)
            for key, stand_in in _STAND_INS.items():
                given = data.get(key, stand_in)
                data[key] = {**stand_in, **given} if isinstance(stand_in, dict) and isinstance(given, dict) else given
    return None


def _remove(data: Any, where: Where) -> None:
    for part in where[:-1]:
        inside = (
            isinstance(data, dict)
            and part in data
            or isinstance(data, list)
            and isinstance(part, int)
            and part < len(data)
        )
        if not inside:
            return
        data = data[part]
    if isinstance(data, dict) and where:
        data.pop(where[-1], None)
    elif isinstance(data, list) and where:
        del data[int(where[-1]) :]


def _override(data: dict[str, Any], override: str) -> None:
    """Sets what ``a.b.c=value`` names; the value is YAML."""
    from workbench.document import parse

    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"--set {override} is not of the form key=value.", "Write for example --set gate.metric_drop=0.02."
        )
    put(data, where_of(data, key), parse(f"value: {text}", Path("--set")).data["value"])


def _problems(error: ValidationError, document: Document) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        where = _spelled(item["loc"], document.data)
        yield Problem(document.line(where), ".".join(map(str, where)), _sentence(item, where))


def _spelled(loc: tuple[str | int, ...], data: Any) -> Where:
    """``loc`` without the names that pydantic adds for the branches of a union."""
    where: list[str | int] = []
    for index, part in enumerate(loc):
        inside = isinstance(data, dict) and part in data or isinstance(data, list) and isinstance(part, int)
        if inside:
            data = data[part]
        elif index < len(loc) - 1 or not isinstance(data, dict):
            continue
        where.append(part)
    return tuple(where)


def _sentence(item: Mapping[str, Any], where: Where) -> str:
    """One validation error in the user's words: what is wrong, what is allowed, the nearest spelling."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _allowed(where[:-1])
        return _with_allowed("unknown key", str(where[-1]), allowed)
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        allowed = [word.strip("' ") for word in re.split(r",| or ", context["expected"])]
        return _with_allowed(f"{item['input']!r} is not allowed", str(item["input"]), allowed)
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return "must be lower-case letters, digits, '.', '_' and '-', starting with a letter or digit"
    return f"{item['msg'][0].lower()}{item['msg'][1:]} (it is {json.dumps(item['input'], default=str)[:60]})"


def _with_allowed(message: str, word: str, allowed: Sequence[str]) -> str:
    """``message``, the nearest of what is ``allowed`` to ``word``, and all of it."""
    return "; ".join(filter(None, [message, nearest(word, allowed), f"allowed: {', '.join(allowed)}"]))


def _allowed(where: Where) -> list[str]:
    """The keys that the part of the recipe at ``where`` may have."""
    schema = Recipe.model_json_schema()
    node = schema
    for part in where:
        node = _resolve(schema, node)
        others = [node.get("additionalProperties"), *node.get("patternProperties", {}).values(), {}]
        named = node.get("properties", {}).get(part) or next(other for other in others if isinstance(other, dict))
        node = node.get("items", {}) if isinstance(part, int) else named
    return list(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in (node, *node.get("anyOf", []), *node.get("oneOf", [])):
        if reference := option.get("$ref"):
            found: dict[str, Any] = schema["$defs"][reference.rsplit("/", 1)[1]]
            return found
    return node


def _file_problems(document: Document, project: Path) -> Iterator[Problem]:
    """Files that the recipe names and that are not there, or lie outside the project."""
    for section, key in (("model", "source"), ("data", "evaluate"), ("data", "calibrate")):
        part = document.data.get(section)
        name = part.get(key) if isinstance(part, dict) else None
        if not isinstance(name, str):
            continue
        message = ""
        if re.match(r"(oci|https?):", name):
            message = "what lies elsewhere is named with its digest: {url: …, sha256: …} or {oci: …@sha256:…}"
        elif name.startswith("python:"):
            message = "python: is not something this version can read; name an ONNX or npz file"
        elif Path(name).is_absolute() or ".." in Path(name).parts:
            message = f"{name} must be a path inside the project, relative to {project}"
        elif not (project / name).is_file():
            near = nearest(name, [str(p.relative_to(project)) for p in (project / name).parent.glob("*")])
            message = "; ".join(filter(None, [f"there is no file {name} in {project}", near]))
        if message:
            yield Problem(document.line((section, key)), f"{section}.{key}", message)


def _whole_problems(recipe: Recipe, document: Document) -> Iterator[Problem]:
    """What only the recipe as a whole can show."""

    def problem(message: str, *where: str | int) -> Problem:
        return Problem(document.line(where), ".".join(map(str, where)), message)

    for name, chain in recipe.variants.items():
        if name == "original":
            yield problem("is the name of the model as it came; call the variant something else", "variants", name)
        for index, operation in enumerate(chain):
            if operation.quantize.mode == "static" and recipe.data.calibrate is None:
                yield problem(
                    "static quantization needs data.calibrate; add it, or use mode: dynamic", "variants", name, index
                )
            if index and chain[index - 1].named()[0] == "quantize":
                yield problem("the model is quantized already; nothing can follow", "variants", name, index)
    named, known = recipe.choose.variant, ["original", *recipe.variants]
    if named is not None and named not in known:
        yield problem(_with_allowed(f"there is no variant {named!r}", named, known), "choose", "variant")
    if recipe.image is not None and recipe.image.builder == "oci":
        image = recipe.image
        asked = {"base": image.base.image, "device": image.device == "cuda", "limits": image.limits.gpus}
        for key in (key for key, value in asked.items() if value):
            yield problem("needs an engine; write builder: docker", "image", key)
    if recipe.gate.p99 is not None and recipe.gate.p99.of not in ("variant", *recipe.benchmark):
        unknown = f"there is no benchmark {recipe.gate.p99.of!r}"
        allowed = ["variant", *recipe.benchmark]
        yield problem(_with_allowed(unknown, recipe.gate.p99.of, allowed), "gate", "p99", "of")
    for name, bench in recipe.benchmark.items():
        if bench.scenario == "server" and (bench.rate is None or bench.p99 is None):
            yield problem("the server scenario needs rate (200/s or max) and p99 (10ms)", "benchmark", name)
        if bench.scenario == "single-stream" and (bench.rate is not None or bench.p99 is not None):
            yield problem("rate and p99 belong to the server scenario", "benchmark", name)
    if recipe.benchmark and recipe.image is None:
        yield problem("a benchmark needs an image to run; add an image section", "benchmark")
    if recipe.push is not None:
        if recipe.image is None:
            yield problem("there is nothing to push; add an image section", "push")
        try:
            check_destination(recipe.push.to)
        except UsageError as error:
            yield problem(f"{error.message} {error.cure}", "push", "to")
