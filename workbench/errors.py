"""Everything that can go wrong, as sentences for the user.

::

    WorkbenchError          1    a bug; anything that is not one of the below
    ├── UsageError          2    the command line, or an input file, is not usable
    │   └── RecipeError     2    every problem of a recipe at once, each with its line
    ├── GateFailed          3    no variant keeps the gates
    ├── ArtifactDiffers     4    replay: other bytes than the lock says
    ├── FigureWorse         5    replay: a figure is worse than the lock allows
    ├── MachineLacks        6    engine, base, registry, toolchain ... is not here
    ├── StepFailed          7    a step could not do its work
    └── Cancelled         130    stopped on request

An error carries what happened (with the file or thing it happened to) and the cure: what to do now.
It crosses process borders as the mapping of :meth:`WorkbenchError.as_record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class WorkbenchError(Exception):
    """An error told to the user. ``message`` says what happened to what, ``cure`` what to do now."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".strip()

    def as_record(self) -> dict[str, Any]:
        """The error as a JSON mapping: ``kind``, ``message``, ``cure``."""
        return {"kind": type(self).__name__, "message": self.message, "cure": self.cure}


class UsageError(WorkbenchError):
    """The command line or an input file cannot be used as it is.

    ``problems`` has what is wrong in a document one by one (:class:`workbench.document.Problem`), by line.
    """

    exit_code = 2
    problems: tuple[Any, ...] = ()


class RecipeError(UsageError):
    """A recipe is not valid; the message holds every problem, one a line."""


class GateFailed(WorkbenchError):
    """No variant keeps the gates of the recipe."""

    exit_code = 3


class ArtifactDiffers(WorkbenchError):
    """A replayed artifact has other bytes than the lock says."""

    exit_code = 4


class FigureWorse(WorkbenchError):
    """A replayed figure is worse than the lock allows."""

    exit_code = 5


class MachineLacks(WorkbenchError):
    """This machine lacks something the work needs; the cure says how to get it."""

    exit_code = 6


class StepFailed(WorkbenchError):
    """A step could not do its work."""

    exit_code = 7


class Cancelled(WorkbenchError):
    """The work was stopped on request."""

    exit_code = 130


PRECEDENCE: tuple[int, ...] = (7, 6, 4, 5, 3)
"""Where several exit codes apply, the first of these is the one given."""

KINDS: Mapping[str, type[WorkbenchError]] = {
    kind.__name__: kind
    for kind in (
        WorkbenchError,
        UsageError,
        RecipeError,
        GateFailed,
        ArtifactDiffers,
        FigureWorse,
        MachineLacks,
        StepFailed,
        Cancelled,
    )
}


def from_record(record: Mapping[str, Any]) -> WorkbenchError:
    """The error that :meth:`WorkbenchError.as_record` was written from."""
    kind = KINDS.get(str(record.get("kind")), WorkbenchError)
    return kind(str(record.get("message", "")), str(record.get("cure", "")))
