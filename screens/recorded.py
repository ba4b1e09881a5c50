"""What commands answered when a recording was made: the app that plays it asks this in their place."""

from __future__ import annotations

from screens.command import REFUSED, Answer, Command
from workbench.events import RunState
from workbench.recording import END, Recording


class RecordedAnswers:
    """The answers of a recording, each from the moment on from which it was so."""

    def __init__(self, recording: Recording) -> None:
        answers = recording.manifest.answers
        self._answers = {each.words: each for each in answers}
        self._awaited = frozenset(each.after for each in answers if each.after)
        self._over: frozenset[str] = frozenset()
        self._recipe = recording.recipe.read_bytes() if recording.recipe.exists() else b""

    def see(self, state: RunState) -> bool:
        """Takes in what is over at the moment that is shown; whether other answers are given from now on."""
        before = self._over
        over = {step.id for step in state.steps.values() if step.status not in ("waiting", "running")}
        self._over = self._awaited & (over | ({END} if state.status != "running" else set()))
        return before != self._over

    def answer(self, command: Command) -> Answer:
        """What the command answered; that it is not in the recording, or was not so yet, where that is so."""
        found = self._answers.get(command.words)
        if found is None or command.given not in (b"", self._recipe):
            return Answer(2, "", f"{REFUSED}\nIt does not have what this would say: {command}")
        if found.after and found.after not in self._over:
            what = "the run" if found.after == END else f"step {found.after}"
            return Answer(2, "", f"At this moment of the recording, {what} has not ended yet.")
        return Answer(found.exit_code, found.stdout, found.stderr)
