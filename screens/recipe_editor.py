"""A recipe's text to write in: checked while one writes, its problems below, saved on request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static, TextArea

from screens.code import yaml_spans
from screens.code_area import CodeArea
from screens.command import REFUSED, Answer, Command, is_recording
from screens.draft import Draft
from screens.opened import Opened, Overtaken
from screens.question import Question
from screens.words import mapping, number, quantity, safe
from workbench.errors import WorkbenchError

REST_SECONDS = 0.4
"""How long one has to stop writing before a process is started that checks the text."""


class RecipeEditor(Vertical):
    """The recipe at ``recipe`` in ``project``. It is read like any text until :meth:`edit`."""

    DEFAULT_CSS = """
    RecipeEditor {
        height: 1fr;
        #text-status { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
        #problems {
            height: auto; max-height: 35%; border: none; padding: 0 1; background: $background;
            border-top: solid $error-muted; border-title-color: $text-error;
            &:focus { border: none; border-top: solid $error; }
        }
    }
    """

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._project, self._recipe = project, recipe
        self._file = Opened(project / recipe)
        self._draft = Draft(project, recipe)
        self._looked = False
        self._loaded = self._seen = ""
        self._overtaken = False
        self._checked: Content = Content("")
        self._lines: list[int] = []
        # Not looked up: a check may end when they have been removed and this has not been.
        self.area = CodeArea(yaml_spans, id="recipe-text")
        """What is written in."""
        self._status = Static(id="text-status", markup=False)
        self._problems = OptionList(id="problems", markup=False)

    def compose(self) -> ComposeResult:
        self._problems.border_title = "Problems"
        self._problems.display = False
        yield self.area
        yield self._status
        yield self._problems

    def on_mount(self) -> None:
        self.area.indent_width = 2

    @property
    def unsaved(self) -> bool:
        """Whether the text is another than the one that was read or saved last."""
        return self.area.text != self._loaded

    @property
    def editing(self) -> bool:
        """Whether letters go into the text."""
        return not self.area.read_only

    def look(self) -> None:
        """Takes in what else may have changed: the file, unless that would lose a text, and what it names."""
        if self.unsaved:
            self._overtaken = self._file.overtaken
        else:
            self._file.read()
            self._load(self._file.text)
        if not self._looked:
            self._looked = True
            self._take_draft()
        self._check(0.0)

    def _load(self, text: str) -> None:
        at = self.area.cursor_location
        if text.count("\r\n") != text.count("\n"):
            text = text.replace("\r\n", "\n")  # of mixed line ends the area would make all the longer ones
        if text != self.area.text:
            self.area.load_text(text)
            self.area.move_cursor(self.area.clamp_visitable(at))
        self._loaded = self._seen = self.area.text
        self._overtaken = False

    def _take_draft(self) -> None:
        """Goes on with what was written here and not saved, where an app ended before it was."""
        draft = self._draft.kept()
        if draft is not None and draft != self.area.text:
            self._replace(draft)
            told = "What was written here and not saved is back. ctrl+z gives the file as it is."
            self.app.notify(told, title=self._recipe, markup=False)

    def _replace(self, text: str) -> None:
        """Has another text as an edit, which can be undone: the one before is not lost."""
        self.area.replace(text, (0, 0), self.area.document.end)
        self._seen = self.area.text

    def edit(self) -> None:
        """From now on letters go into the text."""
        refused = REFUSED if is_recording(self._project) else self._file.problem
        if refused:
            self.app.notify(refused, severity="warning", markup=False)
            return
        self.area.read_only = False
        self.area.focus()
        self._show()

    def leave(self) -> None:
        """From now on keys are keys; the problems are at hand where there are some."""
        self.area.read_only = True
        (self._problems if self._lines else self.area).focus()
        self._show()

    def next_problem(self) -> None:
        """Goes to the next line that has a problem, from the last to the first."""
        here = self.area.cursor_location[0] + 1
        lines = sorted(line for line in self._lines if line)
        if lines:
            self.area.go_to(next((line for line in lines if line > here), lines[0]))
            self.area.focus()

    def save(self, *, over: bool = False) -> bool:
        """Writes the file; False where it could not be, or somebody else has written it and it is asked first."""
        if self.unsaved or over:
            try:
                self._file.write(self.area.text, over=over)
            except Overtaken:
                self._ask()
                return False
            except WorkbenchError as error:
                self.app.notify(str(error), severity="error", markup=False)
                return False
            self._loaded, self._overtaken = self.area.text, False
            self._draft.drop()
        self.look()
        return True

    def discard(self) -> None:
        """Forgets what is not saved."""
        self.workers.cancel_group(self, "check")
        self._draft.drop()

    def _ask(self) -> None:
        gone = not (self._project / self._recipe).exists()
        asked = f"{self._recipe} was {'removed' if gone else 'changed'} since it was read here."
        if not gone:
            asked += " Reload takes what is there now; ctrl+z then gives yours back."
        answers = {"overwrite": "Write mine"} if gone else {"reload": "Reload", "overwrite": "Write mine"}
        self.app.push_screen(Question("Not saved", asked, answers), self._answered)

    def _answered(self, answer: str | None) -> None:
        if answer == "overwrite":
            self.save(over=True)
        elif answer == "reload":
            self._file.read()
            self._replace(self._file.text)
            self._loaded, self._overtaken = self.area.text, False
            self._check(0.0)

    @on(TextArea.Changed)
    def _written(self, event: TextArea.Changed) -> None:
        event.stop()
        if self.area.text != self._seen:
            self._seen = self.area.text
            self._check(REST_SECONDS)

    @work(exclusive=True, group="check")
    async def _check(self, rest: float) -> None:
        """Has the text checked as it is when one rests, saved or not."""
        self._checked = Content.styled("… checking", "$text-muted")
        self._show()
        await asyncio.sleep(rest)
        if self.unsaved:
            self._draft.keep(self.area.text)
        else:
            self._draft.drop()
        words = ("validate", self._recipe, "--stdin", "--json")
        self._told(await Command(words, self._project, self.area.text.encode()).answer())

    def _told(self, answer: Answer) -> None:
        rows = answer.json()
        found = mapping(rows[0]) if isinstance(rows, list) and rows else {}
        problems = [mapping(each) for each in found.get("problems", [])]
        if found:
            self._checked = (
                Content.styled("✓ valid", "$text-success")
                if found.get("valid")
                else Content.styled(f"✗ {quantity(len(problems), 'problem')}", "$text-error")
            )
        else:
            said = (answer.stderr.strip() or f"it ended with {answer.exit_code}").splitlines()[0]
            self._checked = Content.styled(f"? not checked: {safe(said)}", "$text-warning")
        self._lines = [int(number(each.get("line")) or 0) for each in problems]
        self.area.mark({line for line in self._lines if line})
        listed = self._problems
        at = listed.highlighted
        listed.set_options([problem_line(each) for each in problems])
        listed.display = bool(problems)
        if problems:
            listed.highlighted = min(at or 0, len(problems) - 1)
        self._show()

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if line := self._lines[event.option_index]:
            self.area.go_to(line)
        self.edit()

    def _show(self) -> None:
        """How the text stands, in the line below it."""
        parts = [self._checked] if self._checked.plain else []
        if self._file.problem:
            parts = [Content.styled(f"✗ {safe(self._file.problem)}", "$text-error")]
        if self._overtaken:
            parts.append(Content.styled("! changed on disk since it was read", "$text-warning"))
        parts.append(
            Content.styled("● not saved (ctrl+s saves)", "$text-warning bold")
            if self.unsaved
            else Content.styled("saved", "$text-muted")
        )
        parts.append(Content.styled("writing; esc leaves" if self.editing else "i or enter: write", "$text-muted"))
        self._status.update(Content("   ").join(parts))


def problem_line(problem: Mapping[str, Any]) -> Content:
    """A problem as ``workbench validate`` tells it: its line, where, and the sentence."""
    line = number(problem.get("line")) or 0
    where = safe(problem.get("where", ""))
    return Content.assemble(
        Content.styled(f"line {line:<4.0f}" if line else "         ", "$text-error"),
        Content.styled(f"{where}: " if where else "", "bold"),
        safe(problem.get("message", "")),
    )
