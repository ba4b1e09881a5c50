"""Commands about runs: carried out, replayed, listed, followed, shown."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workbench.commands.arguments import Json, RecipePath, RunName, project_here, recipes_of
from workbench.errors import UsageError

if TYPE_CHECKING:
    from workbench.recipe import RecipeFile
    from workbench.runs import Request

UPDATES = ("base", "wheels", "tools", "choice")


def _words() -> list[str]:
    """The command as it was typed."""
    return ["workbench", *sys.argv[1:]]


def run(
    recipe: RecipePath,
    detach: Annotated[bool, typer.Option("--detach", help="start the run and return at once")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would run, what not, and why")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="another value, this once")
    ] = None,
    until: Annotated[str, typer.Option(metavar="STEP", help="stop after this step")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="make everything again")] = False,
    update: Annotated[
        list[str] | None, typer.Option(metavar="WHAT", help="unpin: base, wheels, tools or choice")
    ] = None,
    no_commit: Annotated[bool, typer.Option("--no-commit", help="write the lock, but do not commit")] = False,
    json: Json = False,
) -> None:
    """Carry out a recipe: make what is missing, lock, commit both."""
    from workbench import recipe as recipes
    from workbench.runs import Request

    if unknown := [item for item in update or [] if item not in UPDATES]:
        raise UsageError(f"--update {unknown[0]} is not known.", f"Allowed: {', '.join(UPDATES)}.")
    file = recipes.load(recipe, set_ or ())
    request = Request(
        project=str(file.project),
        recipe=str(file.path),
        command=_words(),
        overrides=set_ or [],
        until=until,
        fresh=fresh,
        update=update or [],
        commit=not no_commit,
    )
    _check_until(file, request)
    if dry_run:
        _dry_run(file, request, json)
    else:
        _start(request, detach, json)


def _check_until(file: "RecipeFile", request: "Request") -> None:
    from workbench.document import nearest
    from workbench.plan import Pins, plan

    steps = [step.id for step in plan(file, Pins())]
    if request.until and request.until not in steps:
        hint = nearest(request.until, steps)
        raise UsageError(
            f"There is no step {request.until} in {file.path.name}{f'; {hint}' if hint else '.'}",
            f"Its steps: {', '.join(steps)}.",
        )


def _dry_run(file: "RecipeFile", request: "Request", json: bool) -> None:
    from screens.tables import print_table
    from workbench import lock
    from workbench.dryrun import foresee
    from workbench.lookup import Lookup
    from workbench.run import machine_facts, pins_for, planned
    from workbench.steps import check_machine
    from workbench.store import Store

    machine, isa = machine_facts()
    pins = pins_for(file, lock.load(file.lock_path), request.update)
    update = tuple(request.update)
    lookup = Lookup(
        file.project, Store(file.project / ".workbench"), machine, isa, request.fresh, update, fresh_figures=False
    )
    rows = foresee(planned(file, pins, request.until), lookup, file.project, request.recipe)
    print_table(["step", "will", "because"], rows, json=json)
    for row in rows:
        if row["will"] in ("run", "depends"):
            check_machine(row["kind"])


def _start(request: "Request", detach: bool, json: bool) -> None:
    from workbench import runs

    folder = runs.start(request)
    if detach:
        typer.echo(folder.name)
        return
    raise typer.Exit(_watch(folder, json))


def _watch(folder: Path, json: bool, *, cancel: bool = True) -> int:
    """Follows a run to its end; its exit code. SIGINT and SIGTERM cancel the run, SIGHUP leaves it running."""
    import signal

    from screens.console import watch as follow
    from workbench import runs

    def stop(*_: Any) -> None:
        runs.cancel(folder)

    def leave(*_: Any) -> NoReturn:
        raise typer.Exit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop if cancel else leave)
    return runs.exit_code_of(follow(folder, json=json))


def replay(
    recipe: Annotated[list[Path], typer.Argument(metavar="RECIPE…")],
    level: Annotated[str, typer.Option(help="exact: every digest and figure; figures: only the figures")] = "exact",
    cached: Annotated[bool, typer.Option("--cached", help="quick check: artifacts may come from the store")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", hidden=True)] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="write a JUnit report")] = None,
    summary: Annotated[Path | None, typer.Option(metavar="FILE.md", help="write a summary in Markdown")] = None,
    json: Json = False,
) -> None:
    """Make everything again from the lock, and compare. Nothing is taken from the store."""
    from screens.report import junit as write_junit
    from screens.report import summary_markdown
    from workbench import recipe as recipes
    from workbench import runs
    from workbench.errors import PRECEDENCE
    from workbench.runs import Request

    if level not in ("exact", "figures"):
        raise UsageError(f"--level {level} is not known.", "Allowed: exact, figures.")
    files = [recipes.load(path, set_ or ()) for path in recipes_of(recipe)]
    codes, states = [], []
    for file in files:
        request = Request(
            project=str(file.project),
            recipe=str(file.path),
            command=_words(),
            mode="replay",
            level=level,
            cached=cached,
            overrides=set_ or [],
        )
        folder = runs.start(request)
        codes.append(_watch(folder, json))
        states.append(runs.state_of(folder))
    if junit:
        write_junit(states, junit)
    if summary:
        summary_markdown(states, summary)
    order = [*PRECEDENCE, *sorted(set(codes) - set(PRECEDENCE) - {0}), 0]
    raise typer.Exit(next(code for code in order if code in codes))


def list_runs(json: Json = False) -> None:
    """The runs of this project, newest first."""
    from screens.tables import print_table
    from workbench import runs

    rows = [runs.summary(folder) for folder in runs.all_runs(project_here())]
    print_table(
        ["run", "recipe", "mode", "status", "exit_code", "seconds", "finished", "steps", "now"], rows, json=json
    )


def status(json: Json = False) -> None:
    """Where recipes stand: never run, as locked, changed, running."""
    from screens.standing import in_words
    from screens.tables import print_table
    from workbench.status import recipes_status

    found = recipes_status(project_here())
    columns = ["recipe", "status", "choice", "size", "p50", "image", "last_run"]
    print_table(columns, found if json else map(in_words, found), json=json)


def watch(run: RunName = None, json: Json = False) -> None:
    """Follow a run to its end. Ending the watch leaves the run running."""
    from workbench import runs

    raise typer.Exit(_watch(runs.find(project_here(), run), json, cancel=False))


def logs(run: RunName = None, step: Annotated[str, typer.Argument(help="a step of it")] = "run") -> None:
    """The raw output of a step, or of the run process."""
    from workbench import runs

    folder = runs.find(project_here(), run) / "logs"
    path = folder / f"{step.replace('/', '-')}.txt"
    if not path.is_file():
        known = ", ".join(sorted(item.stem for item in folder.iterdir()))
        raise UsageError(f"There is no log of step {step} in run {folder.parent.name}.", f"There are: {known}.")
    typer.echo(path.read_text(errors="replace"), nl=False)


def record(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="NAME.workbench-run")],
    run: RunName = None,
    json: Json = False,
) -> None:
    """Write a run to one file that plays anywhere. Paths, names and secrets of this machine are taken out of it."""
    import dataclasses
    from json import dumps

    from workbench import runs
    from workbench.recorder import write

    written = write(runs.find(project_here(), run), output)
    if json:
        typer.echo(dumps({"file": str(output), **dataclasses.asdict(written)}, indent=2))
        return
    removed = ", ".join(f"{kind} {count} times" for kind, count in written.removed.items())
    typer.echo(f"{output} has {written.size} bytes; taken out: {removed or 'nothing'}.", err=True)
    for note in written.notes:
        typer.echo(note, err=True)
    typer.echo(output)


def play(
    what: Annotated[
        str | None, typer.Argument(metavar="[RUN_OR_FILE]", help="a recording or a run; the shipped recording without")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.25, max=64, metavar="N", help="seconds in a second, 0.25 to 64")] = 1.0,
) -> None:
    """Show a recorded run in the app, as it went on. Needs no engine, GPU, git or project."""
    import tempfile

    from workbench import recording

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("workbench play needs a terminal.", "For pipes there is: workbench watch RUN")
    from screens.play import play as play_file

    if what is None:
        play_file(recording.shipped(), speed)
    elif recording.is_named(what):
        play_file(Path(what), speed)
    else:
        from workbench import runs
        from workbench.recorder import write

        run = runs.find(project_here(), what)
        typer.echo(f"Recording {run.name} to play it …", err=True)
        with tempfile.TemporaryDirectory(prefix="workbench-play-") as folder:
            file = Path(folder) / f"{run.name}{recording.SUFFIX}"
            write(run, file)
            play_file(file, speed)


def report(
    run: RunName = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.html", help="report.html in the run's folder without")
    ] = None,
) -> None:
    """A run as one HTML page, with its plots."""
    import os

    from screens.report_html import write_report
    from workbench import runs

    folder = runs.find(project_here(), run)
    path = output or Path(os.path.relpath(folder / "report.html"))
    write_report(folder, path)
    typer.echo(path)


def cancel(run: Annotated[str, typer.Argument(metavar="RUN")]) -> None:
    """Stop a run; what it finished stays in the store."""
    from workbench import runs

    folder = runs.find(project_here(), run)
    if not runs.cancel(folder):
        raise UsageError(f"Run {folder.name} is not running.", "See: workbench runs")
    for _ in runs.follow(folder):
        pass
    typer.echo(f"{folder.name} {runs.state_of(folder).status}", err=True)


def gc(json: Json = False) -> None:
    """Remove what no newest run needs, from store and engine."""
    from screens.tables import print_table
    from workbench.gc import collect

    print_table(["removed", "files", "bytes"], collect(project_here()), json=json)


def demo(
    folder: Annotated[Path, typer.Argument(help="a project folder, made if need be")] = Path("workbench-demo"),
    json: Json = False,
) -> None:
    """The main job on the shipped digits, in a folder of its own."""
    from workbench import recipe as recipes
    from workbench.demo import make_project
    from workbench.runs import Request

    path = make_project(folder)
    file = recipes.load(path)
    typer.echo(f"Project {file.project}: workbench run {path.relative_to(file.project)}", err=True)
    _start(Request(project=str(file.project), recipe=str(file.path), command=_words()), detach=False, json=json)
