"""What commands answered when a recording was made: the app that plays it asks this in their place."""

from __future__ import annotations

from screens.command import Answer, Command
from workbench.recording import Manifest

REFUSED = "This is a recording: nothing is carried out in it."


class RecordedAnswers:
    """The answers of a recording, each from the moment on from which it was so."""

    def __init__(self, manifest: Manifest) -> None:
        self._answers = {each.words: each for each in manifest.answers}
        self._awaited = frozenset(each.after for each in manifest.answers if each.after)
        self._ended: frozenset[str] = frozenset()

    def see(self, ended: frozenset[str]) -> bool:
        """Takes in which steps have ended at the moment that is shown; whether other answers are given from now on."""
        before, self._ended = self._ended, ended & self._awaited
        return before != self._ended

    def answer(self, command: Command) -> Answer:
        """What the command answered; that it is not in the recording, or was not so yet, where that is so."""
        found = self._answers.get(command.words)
        if found is None:
            return Answer(2, "", f"{REFUSED}\nIt does not have what this would say: {command}")
        if found.after and found.after not in self._ended:
            return Answer(2, "", f"At this moment of the recording, step {found.after} has not ended yet.")
        return Answer(found.exit_code, found.stdout, found.stderr)
