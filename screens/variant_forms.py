"""The forms of the Compress stage: a variant added or changed, removed, given out as a file; how one is chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from textual.app import ComposeResult
from textual.widgets import Input, Label, Select

from screens.candidates import DEFAULTS
from screens.dialog import Dialog, Field, Unanswered
from screens.words import mapping, safe

MODES = ("static", "dynamic", "weight-only")
CALIBRATIONS = ("minmax", "percentile")
SCALES = ("one for each channel", "one for each tensor")
AIMS = ("p50", "p99", "size", "metric_drop")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def setting(name: str, value: object) -> str:
    """``name=value`` as ``workbench edit`` takes it: YAML, as short as people write it."""
    return f"{name}={_yaml(value)}"


def _yaml(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_yaml(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_-]*", value) and value not in ("true", "false", "null"):
        return value
    return json.dumps(value)


def quantization(mode: str, calibration: str, percentile: str, per_channel: bool) -> dict[str, Any]:
    """The settings of a quantization, without those that say what goes without saying.

    Raises ValueError where the percentile is none.
    """
    found: dict[str, Any] = {"to": "int8", "mode": mode}
    if mode == "static" and calibration == "percentile":
        found["calibration"] = calibration
        try:
            value = float(percentile)
        except ValueError:
            value = 0.0
        if not 50 < value <= 100:
            raise ValueError("The percentile must be a number above 50, at most 100.")
        if value != DEFAULTS["percentile"]:
            found["percentile"] = value
    if not per_channel:
        found["per_channel"] = False
    return found


class VariantForm(Dialog):
    """Adds a variant, or changes the one named ``name`` whose chain is ``chain``."""

    DOES = "Save"
    LOOKS = ("--dry-run",)

    def __init__(
        self, project: Path, recipe: str, taken: Collection[str], name: str = "", chain: Sequence[Any] = ()
    ) -> None:
        super().__init__(project)
        self._recipe, self._taken, self._variant = recipe, taken, name
        self._given = {**DEFAULTS, **mapping(next(iter(chain), {}), "quantize")}
        self.ASKS = f"Change {safe(name)}" if name else "Add a variant"

    def fields(self) -> ComposeResult:
        given = self._given
        if not self._variant:
            yield Field("name", Input(placeholder="such as int8-percentile", id="name", compact=True))
        yield Field("quantize", _select(MODES, given["mode"], "mode"))
        yield Field("calibration", _select(CALIBRATIONS, given["calibration"], "calibration"))
        yield Field("percentile", Input(str(given["percentile"]), id="percentile", compact=True))
        yield Field("scales", _select(SCALES, SCALES[given["per_channel"] is not True], "scales"))

    def words(self) -> tuple[str, ...]:
        name = self._variant or self.query_one("#name", Input).value.strip()
        mode, calibration = (str(self.query_one(f"#{each}", Select).value) for each in ("mode", "calibration"))
        self.query_one("#calibration-field").display = mode == "static"
        self.query_one("#percentile-field").display = mode == "static" and calibration == "percentile"
        if not self._variant:
            _check_name(name, self._taken)
        percentile = self.query_one("#percentile", Input).value
        per_channel = self.query_one("#scales", Select).value == SCALES[0]
        chain = [{"quantize": quantization(mode, calibration, percentile, per_channel)}]
        return "edit", self._recipe, setting(f"variants.{name}", chain)


def _select(options: Sequence[str], value: object, id: str) -> Select[str]:  # noqa: A002
    chosen = str(value) if value in options else options[0]
    return Select([(each, each) for each in options], value=chosen, allow_blank=False, id=id, compact=True)


def _check_name(name: str, taken: Collection[str]) -> None:
    if not name:
        raise Unanswered("Give the variant a name.")
    if not _NAME.fullmatch(name):
        raise ValueError("A name has lower-case letters, digits, '.', '_' and '-', and begins with a letter or digit.")
    if name in taken:
        raise ValueError(f"There is a variant {safe(name)} already; change it with e.")


class RemoveForm(Dialog):
    """Removes a variant from the recipe, when one says so."""

    DOES = "Remove"
    LOOKS = ("--dry-run",)

    def __init__(self, project: Path, recipe: str, name: str) -> None:
        super().__init__(project)
        self._recipe, self._variant = recipe, name
        self.ASKS = f"Remove {safe(name)}?"

    def fields(self) -> ComposeResult:
        yield Label("What was made of it stays in the store until workbench gc.")

    def words(self) -> tuple[str, ...]:
        return "edit", self._recipe, "--remove", f"variants.{self._variant}"


class ExportForm(Dialog):
    """Gives a variant out as a file."""

    DOES = "Export"

    def __init__(self, project: Path, recipe: str, name: str) -> None:
        super().__init__(project)
        self._recipe, self._variant = recipe, name
        self.ASKS = f"Export {safe(name)} as an ONNX file"

    def fields(self) -> ComposeResult:
        yield Field("file", Input(f"{Path(self._recipe).stem}-{self._variant}.onnx", id="file", compact=True))

    def words(self) -> tuple[str, ...]:
        file = self.query_one("#file", Input).value.strip()
        if not file:
            raise ValueError("Name the file.")
        if (self.project / file).exists():
            raise ValueError(f"{safe(file)} is there already; name another file.")
        return "export", self._recipe, self._variant, "-o", file


class ChooseForm(Dialog):
    """How the variant is chosen: the best of those that keep the gates by a figure, or one by hand."""

    ASKS = "Choose"
    DOES = "Save"
    LOOKS = ("--dry-run",)

    def __init__(
        self, project: Path, recipe: str, names: Sequence[str], now: Mapping[str, Any], hand: str = ""
    ) -> None:
        super().__init__(project)
        self._recipe, self._variants = recipe, names
        named = hand or str(now.get("variant") or "")
        aim = str(now.get("minimize") or AIMS[0])
        self._now = f"variant: {named}" if named in names else f"minimize: {aim if aim in AIMS else AIMS[0]}"

    def fields(self) -> ComposeResult:
        options = [(f"least {aim.replace('_', ' ')} that keeps the gates", f"minimize: {aim}") for aim in AIMS]
        options += [(f"by hand: {safe(name)}", f"variant: {name}") for name in self._variants]
        yield Field("variant", Select(options, value=self._now, allow_blank=False, id="choice", compact=True))

    def words(self) -> tuple[str, ...]:
        key, _, value = str(self.query_one("#choice", Select).value).partition(": ")
        return "edit", self._recipe, setting("choose", {key: value})
