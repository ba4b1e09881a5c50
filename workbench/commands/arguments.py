"""What several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.errors import UsageError

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe, such as recipes/digits.yaml")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
RunName = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="a run's name or its beginning; the newest without")
]
Reference = Annotated[
    str,
    typer.Argument(metavar="REF", help="registry.example.com/team/digits:1.4 or oci:FOLDER:TAG; or @DIGEST"),
]


def recipes_of(paths: list[Path]) -> list[Path]:
    """``paths`` without the locks, which a shell takes along for ``recipes/*.yaml``."""
    found = [path for path in paths if not path.name.endswith(".lock.yaml")]
    if not found:
        raise UsageError(f"{paths[0]} is a lock.", "Name its recipe.")
    return found


def project_here() -> Path:
    """The project of the folder that the command is said in."""
    from workbench.project import project_of

    return project_of(Path.cwd() / "here")
