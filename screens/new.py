"""``n``: a first recipe for a model, as it will be written, before it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.suggester import SuggestFromList
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from screens.code import yaml_spans
from screens.code_area import CodeArea
from screens.command import Answer
from screens.dialog import Dialog, Field, Unanswered
from screens.project_files import files_of, matching
from screens.words import items, mapping, size

_MODEL, _DATA = ".onnx", ".npz"
_OFFERED = {"evaluate": "data.evaluate", "calibrate": "data.calibrate"}
_COPY = "mkdir -p models && cp PATH/MODEL.onnx models/"


class NewForm(Dialog):
    """Asks for a model of the project and its data; shows the recipe that they come to, and has it written."""

    ASKS = "New recipe"
    DOES = "Write it"
    LOOKS = ("--dry-run", "--json")
    BINDINGS = [
        Binding("down", "mark(1)", "Next", id="new.next", tooltip="the next model", show=False),
        Binding("up", "mark(-1)", "Previous", id="new.previous", tooltip="the model before", show=False),
    ]
    DEFAULT_CSS = """
    NewForm {
        #form { width: 100; }
        #models {
            height: auto; max-height: 7; border: none; padding: 0; margin: 0 0 0 14; background: $surface;
            display: none;
        }
        #preview { overflow-x: hidden; display: none; }
        #form-command { max-height: 2; }
    }
    NewForm.-seen {
        #form { height: 96%; }
        #preview { display: block; }
    }
    """

    def __init__(self, project: Path) -> None:
        super().__init__(project)
        self._models: Mapping[str, int] = {}
        self._listed = False

    def fields(self) -> ComposeResult:
        yield Field("model", Input(placeholder="type to filter, or a path", id="model", compact=True))
        models = OptionList(id="models", markup=False, compact=True)
        models.can_focus = False  # it is walked from the line above
        yield models
        yield Field("evaluate on", Input(id="evaluate", compact=True))
        yield Field("calibrate on", Input(id="calibrate", compact=True))
        yield Field("name", Input(id="name", compact=True))

    def preview(self) -> ComposeResult:
        yield CodeArea(yaml_spans, id="preview", line_numbers=False)

    def on_mount(self) -> None:
        self._list()

    def words(self) -> tuple[str, ...]:
        model, evaluate, calibrate, name = (
            self.query_one(f"#{each}", Input).value.strip() for each in ("model", "evaluate", "calibrate", "name")
        )
        if not model or not self._is_file(model):
            self._offer({})
            self._show("")
            raise Unanswered(self._what_is_missing(model))
        model = str(Path(model).expanduser())
        given = {"--evaluate": evaluate, "--calibrate": calibrate, "--name": name}
        return "new", model, *(word for option, value in given.items() if value for word in (option, value))

    def looked(self, answer: Answer) -> None:
        found = answer.json()
        if answer.exit_code or not isinstance(found, dict):
            super().looked(answer)
            self._show("")
            return
        self._show(str(found.get("text", "")))
        lacks = str(found.get("lacks") or "")
        chosen = {mapping(each).get("what"): str(mapping(each).get("value")) for each in items(found, "choices")}
        self._offer({what: value for what, value in chosen.items() if not (lacks and what == "data.evaluate")})
        self.say(f"No samples fit yet: make {lacks} as the recipe says, or name some." if lacks else "")

    @on(Input.Changed, "#model")
    def _filter(self) -> None:
        """Lists the models that fit what is typed; none where a file is named."""
        text = self.query_one("#model", Input).value.strip()
        found = [] if self._is_file(text) else matching(self._models, text)
        models = self.query_one("#models", OptionList)
        width = max(map(len, found), default=0)
        models.set_options([Option(f"{path:<{width}}  {size(self._models[path]):>10}", id=path) for path in found])
        models.highlighted = 0 if found else None
        models.display = bool(found)

    @on(Input.Submitted, "#model")
    def _take(self, event: Input.Submitted) -> None:
        """Takes the model that is marked, where one is still to be chosen."""
        marked = self.query_one("#models", OptionList).highlighted_option
        if marked is not None:
            event.prevent_default()
            self._put(str(marked.id))

    @on(OptionList.OptionSelected, "#models")
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self._put(str(event.option.id))

    def action_mark(self, step: int) -> None:
        """Marks another model."""
        models = self.query_one("#models", OptionList)
        if models.highlighted is not None:
            models.highlighted = (models.highlighted + step) % models.option_count

    @work(group="list")
    async def _list(self) -> None:
        """Looks which models and data there are."""
        files = await asyncio.to_thread(files_of, self.project, (_MODEL, _DATA))
        self._models = {path: count for path, count in files.items() if path.endswith(_MODEL)}
        self._listed = True
        suggester = SuggestFromList([path for path in files if path.endswith(_DATA)])
        for name in _OFFERED:
            self.query_one(f"#{name}", Input).suggester = suggester
        if len(self._models) == 1:
            self._put(next(iter(self._models)))
        self._filter()
        self.changed()

    def _put(self, model: str) -> None:
        field = self.query_one("#model", Input)
        field.value = model
        field.cursor_position = len(model)

    def _is_file(self, path: str) -> bool:
        return bool(path) and (self.project / Path(path).expanduser()).is_file()

    def _what_is_missing(self, typed: str) -> str:
        if not self._listed:
            return "Looking for models …"
        if typed:
            return "Enter takes the model that is marked; or give the path of one."
        if self._models:
            return "Choose a model: enter takes the one that is marked."
        return f"There is no {_MODEL} file in this project. Copy yours in: {_COPY}"

    def _offer(self, chosen: Mapping[object, str]) -> None:
        """Shows in the lines that are empty what is taken where they stay so."""
        for name, what in _OFFERED.items():
            found = chosen.get(what, "")
            self.query_one(f"#{name}", Input).placeholder = f"{found} (found)" if found else f"a {_DATA} file"
        self.query_one("#name", Input).placeholder = chosen.get("name", "") or "of the model"

    def _show(self, text: str) -> None:
        self.query_one("#preview", CodeArea).show(text)
        self.set_class(bool(text), "-seen")
