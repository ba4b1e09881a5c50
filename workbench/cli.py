"""The command line: every command, thin. Each imports what it needs when it runs.

Annotations are evaluated as they stand: as texts, each is compiled again for every command, 2 ms of ``--help``.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workbench.errors import MachineLacks, UsageError

if TYPE_CHECKING:
    from workbench.recipe import RecipeFile
    from workbench.runs import Request

ABOUT = "Takes a machine-learning model from a file to a compressed, benchmarked, pushed container image."
app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe, such as recipes/digits.yaml")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
RunName = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="a run's name or its beginning; the newest without")
]
UPDATES = ("base", "wheels", "tools", "choice")


@app.callback(invoke_without_command=True, help=ABOUT)
def without_command(
    context: typer.Context,
    serve: Annotated[bool, typer.Option("--serve", help="the app in a browser, on this machine")] = False,
    port: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=65535, help="with --serve: 8765 without; 0 for a free one")
    ] = None,
) -> None:
    """What commands there are. At a terminal this is not asked: the app opens (workbench.__main__)."""
    if context.invoked_subcommand is not None:
        if serve or port is not None:
            raise UsageError("--serve and --port go without a command.", "Write: workbench --serve")
    elif serve:
        _serve_app(port)
    elif port is not None:
        raise UsageError("--port is the port of --serve.", f"Write: workbench --serve --port {port}")
    else:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def _serve_app(port: int | None) -> None:
    try:
        from screens.serve import PORT, serve
    except ModuleNotFoundError as error:
        from shlex import join

        if (error.name or "").partition(".")[0] not in ("aiohttp", "textual_serve"):
            raise
        cure = join([sys.executable, "-m", "pip", "install", "textual-serve>=1.1.3"])
        raise MachineLacks("The app in a browser needs textual-serve, which is not installed.", cure) from None
    serve(PORT if port is None else port)


def _words() -> list[str]:
    """The command as it was typed."""
    return ["workbench", *sys.argv[1:]]


@app.command()
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
            f"There is no step {request.until} in {file.path.name}; {hint}", f"Its steps: {', '.join(steps)}."
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


@app.command()
def new(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="an ONNX file of this project")],
    evaluate: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="samples to score variants on")] = None,
    calibrate: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="samples to take ranges from")] = None,
    name: Annotated[str, typer.Option(help="the recipe's name; the model's without")] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="RECIPE", help="where to; recipes/NAME.yaml without")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the recipe, write nothing")] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite a recipe that is there")] = False,
    json: Json = False,
) -> None:
    """Write a first recipe for a model, with reasons."""
    from json import dumps

    from workbench.new import draft, write

    found = draft(model, evaluate=evaluate, calibrate=calibrate, name=name, output=output, force=force)
    if not dry_run:
        write(found, force=force)
    if json:
        typer.echo(dumps(found.as_json(written=not dry_run), indent=2, ensure_ascii=False))
    elif dry_run:
        typer.echo(found.text, nl=False)
    else:
        typer.echo(found.shown)
    if not dry_run:
        first = f"make {found.lacks} (the recipe says how), then: " if found.lacks else ""
        typer.echo(f"Look it over. Next: {first}workbench run {found.shown}", err=True)


@app.command()
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
    files = [recipes.load(path, set_ or ()) for path in recipe]
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


def _project() -> Path:
    from workbench.project import project_of

    return project_of(Path.cwd() / "here")


@app.command("runs")
def list_runs(json: Json = False) -> None:
    """The runs of this project, newest first."""
    from screens.tables import print_table
    from workbench import runs

    rows = [runs.summary(folder) for folder in runs.all_runs(_project())]
    print_table(
        ["run", "recipe", "mode", "status", "exit_code", "seconds", "finished", "steps", "now"], rows, json=json
    )


@app.command()
def status(json: Json = False) -> None:
    """Where recipes stand: never run, as locked, changed, running."""
    from screens.standing import in_words
    from screens.tables import print_table
    from workbench.status import recipes_status

    found = recipes_status(_project())
    columns = ["recipe", "status", "choice", "size", "p50", "image", "last_run"]
    print_table(columns, found if json else map(in_words, found), json=json)


@app.command()
def watch(run: RunName = None, json: Json = False) -> None:
    """Follow a run to its end. Ending the watch leaves the run running."""
    from workbench import runs

    raise typer.Exit(_watch(runs.find(_project(), run), json, cancel=False))


@app.command()
def logs(run: RunName = None, step: Annotated[str, typer.Argument(help="a step of it")] = "run") -> None:
    """The raw output of a step, or of the run process."""
    from workbench import runs

    folder = runs.find(_project(), run) / "logs"
    path = folder / f"{step.replace('/', '-')}.txt"
    if not path.is_file():
        known = ", ".join(sorted(item.stem for item in folder.iterdir()))
        raise UsageError(f"There is no log of step {step} in run {folder.parent.name}.", f"There are: {known}.")
    typer.echo(path.read_text(errors="replace"), nl=False)


@app.command()
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

    written = write(runs.find(_project(), run), output)
    if json:
        typer.echo(dumps({"file": str(output), **dataclasses.asdict(written)}, indent=2))
        return
    removed = ", ".join(f"{kind} {count} times" for kind, count in written.removed.items())
    typer.echo(f"{output} has {written.size} bytes; taken out: {removed or 'nothing'}.", err=True)
    for note in written.notes:
        typer.echo(note, err=True)
    typer.echo(output)


@app.command()
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

        run = runs.find(_project(), what)
        typer.echo(f"Recording {run.name} to play it …", err=True)
        with tempfile.TemporaryDirectory(prefix="workbench-play-") as folder:
            file = Path(folder) / f"{run.name}{recording.SUFFIX}"
            write(run, file)
            play_file(file, speed)


@app.command()
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

    folder = runs.find(_project(), run)
    path = output or Path(os.path.relpath(folder / "report.html"))
    write_report(folder, path)
    typer.echo(path)


@app.command()
def cancel(run: Annotated[str, typer.Argument(metavar="RUN")]) -> None:
    """Stop a run; what it finished stays in the store."""
    from workbench import runs

    folder = runs.find(_project(), run)
    if not runs.cancel(folder):
        raise UsageError(f"Run {folder.name} is not running.", "See: workbench runs")
    for _ in runs.follow(folder):
        pass
    typer.echo(f"{folder.name} {runs.state_of(folder).status}", err=True)


@app.command()
def gc(json: Json = False) -> None:
    """Remove what no newest run needs, from store and engine."""
    from screens.tables import print_table
    from workbench.gc import collect

    print_table(["removed", "files", "bytes"], collect(_project()), json=json)


@app.command()
def validate(
    recipe: Annotated[list[Path], typer.Argument(metavar="RECIPE…")],
    stdin: Annotated[bool, typer.Option("--stdin", help="check the text on stdin as if it stood in RECIPE")] = False,
    json: Json = False,
) -> None:
    """Check recipes: every problem at once, with line and cure."""
    from workbench.document import MAX_BYTES
    from workbench.validate import validated

    if stdin and len(recipe) > 1:
        raise UsageError("--stdin checks one recipe.", "Name one.")
    found = [validated(path, sys.stdin.buffer.read(MAX_BYTES + 1) if stdin else None) for path in recipe]
    if json:
        from json import dumps

        typer.echo(dumps(found, indent=2, ensure_ascii=False))
        raise typer.Exit(0 if all(each["valid"] for each in found) else 2)
    for each in found:
        if each["valid"]:
            typer.echo(f"{each['recipe']}: valid")
    if problems := [each["error"] for each in found if not each["valid"]]:
        raise UsageError("\n".join(problems))


@app.command()
def edit(
    recipe: RecipePath,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE…", help="as of run --set; the value is YAML")
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="KEY", help="a setting to remove")] = None,
    dry_run: Annotated[bool, typer.Option(help="print the difference, write nothing")] = False,
    json: Json = False,
) -> None:
    """Change settings of a recipe; its comments stay."""
    from json import dumps

    from workbench.settings import edited, write

    if not settings and not remove:
        raise UsageError("There is nothing to edit.", "Name settings: workbench edit RECIPE gate.metric_drop=0.02")
    found = edited(recipe, settings or (), remove or ())
    if not dry_run:
        write(found)
    if json:
        whole = {"recipe": str(recipe), "changed": found.changed, "written": not dry_run, "diff": found.diff()}
        typer.echo(dumps(whole, indent=2, ensure_ascii=False))
    else:
        typer.echo(found.diff(), nl=False)


@app.command()
def schema() -> None:
    """The JSON schema of a recipe, for editors."""
    import json

    from workbench.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def inspect(model: Annotated[Path, typer.Argument(metavar="MODEL")], json: Json = False) -> None:
    """A model's signature, operators, FLOPs and size by layer."""
    from screens.inspect import print_model
    from workbench.model.inspect import inspect as inspect_model

    print_model(inspect_model(model), json=json)


@app.command()
def diff(
    recipe: RecipePath,
    rev: Annotated[str, typer.Argument(metavar="[REV]")] = "HEAD",
    text: Annotated[bool, typer.Option("--text", help="the recipe's text, as a unified difference")] = False,
    json: Json = False,
) -> None:
    """What changed in recipe and figures since a revision."""
    from screens.tables import print_table
    from workbench.diff import changes, text_diff

    if text and json:
        raise UsageError("--text prints a text.", "Leave --json away.")
    if text:
        typer.echo(text_diff(recipe, rev), nl=False)
    else:
        print_table(["where", "what", "before", "now"], changes(recipe, rev), json=json)


@app.command("history")
def list_history(
    recipe: RecipePath,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="how many commits at most")] = 50,
    json: Json = False,
) -> None:
    """The commits that changed a recipe or its lock, newest first."""
    from screens.tables import print_table
    from workbench.revisions import as_line, revisions

    rows = list(revisions(recipe, limit))
    print_table(["commit", "date", "changed", "figures", "subject"], rows if json else map(as_line, rows), json=json)


@app.command()
def commit(
    recipe: RecipePath,
    message: Annotated[str, typer.Option("-m", "--message", help="what changed, without")] = "",
    json: Json = False,
) -> None:
    """Commit a recipe and its lock as they are, and nothing else."""
    from json import dumps

    from workbench.committing import commit_recipe

    made = commit_recipe(recipe, message)
    if json:
        typer.echo(dumps({"recipe": str(recipe), "commit": made}))
    elif made:
        typer.echo(made)
    else:
        typer.echo(f"There is nothing to commit: {recipe} and its lock are as they were.", err=True)


@app.command()
def export(
    recipe: RecipePath,
    variant: Annotated[str | None, typer.Argument(metavar="[VARIANT]", help="the chosen one without")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE")] = Path("model.onnx"),
) -> None:
    """Give a compressed model out as a file."""
    from workbench.export import export_variant

    digest = export_variant(recipe, variant, output)
    typer.echo(f"{output} {digest}")


Reference = Annotated[
    str,
    typer.Argument(metavar="REF", help="registry.example.com/team/digits:1.4 or oci:FOLDER:TAG; or @DIGEST"),
]


@app.command("pull-recipe")
def pull_recipe(
    ref: Reference,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="where to")] = Path("recipes"),
    force: Annotated[bool, typer.Option("--force", help="overwrite other files of the same name")] = False,
) -> None:
    """Get recipe and lock back from an image."""
    from workbench.provenance.pull_recipe import pull, write
    from workbench.registry.where import open_target

    pulled = pull(*open_target(ref))
    if pulled.others:
        typer.echo(f"{pulled.others} more recipes are attached that are as new; see: workbench verify {ref}", err=True)
    for path in write(pulled, output, force=force):
        typer.echo(path)


@app.command()
def verify(
    ref: Reference,
    key: Annotated[Path | None, typer.Option(metavar="PUBLIC_KEY", help="it must be signed with its key")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="download the layers and look into them")] = False,
    json: Json = False,
) -> None:
    """Check that image, lock and attachments belong together. Also who signed them, where somebody did."""
    import dataclasses
    import tempfile

    from screens.tables import print_table
    from workbench.provenance.verify import failure
    from workbench.provenance.verify import verify as check
    from workbench.registry.where import open_target

    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        checks = check(*open_target(ref), key=key, deep=Path(folder) if deep else None)
    print_table(["name", "state", "detail"], [dataclasses.asdict(one) for one in checks], json=json)
    if error := failure(checks):
        raise error


@app.command()
def sign(
    ref: Reference,
    key: Annotated[Path, typer.Option(metavar="PRIVATE_KEY", help="ECDSA on P-256, in PEM")],
) -> None:
    """Sign an image and what is attached to it, as cosign does."""
    from workbench.provenance.sign import sign_all
    from workbench.registry.where import open_target

    for digest, signed in sign_all(*open_target(ref), key, _key_password):
        typer.echo(f"{digest} {'signed' if signed else 'was signed'}")


def _key_password() -> str | None:
    """From the environment, or asked for on a terminal."""
    from workbench.provenance.signature import password

    given = password()
    if given is not None or not sys.stdin.isatty():
        return given
    return str(typer.prompt("Password of the key", hide_input=True, err=True))


@app.command()
def image(
    recipe: RecipePath,
    files: Annotated[int, typer.Option(min=0, metavar="N", help="how many files a list shows")] = 10,
    json: Json = False,
) -> None:
    """The last image: layers, biggest files, waste, what changed."""
    from screens.image import print_image
    from workbench.image.report import report

    print_image(report(recipe, files), json=json)


@app.command()
def push(
    recipe: RecipePath,
    inputs: Annotated[bool, typer.Option("--inputs", help="store model and data beside the image")] = False,
    to: Annotated[str, typer.Option(metavar="REF", help="another place than the recipe's")] = "",
    json: Json = False,
) -> None:
    """Store a recipe's inputs beside its image (--inputs). For machines whose checkout has not got them."""
    from json import dumps

    from workbench.push_inputs import as_recipe_lines, push_inputs

    if not inputs:
        raise UsageError(
            "workbench push stores inputs; a run pushes the image.", "Write: workbench push --inputs RECIPE"
        )
    stored = push_inputs(recipe, to)
    if json:
        typer.echo(dumps(stored, indent=2))
        return
    typer.echo(f"{stored['reference']} {stored['digest']}; the recipe may name the files there:", err=True)
    if stored["only_here"]:
        typer.echo(
            "That is a folder of this machine: for others, store them in a registry with --to REGISTRY/NAME:TAG.",
            err=True,
        )
    typer.echo(as_recipe_lines(stored["sources"]))


@app.command()
def scan(recipe: RecipePath, json: Json = False) -> None:
    """Known vulnerabilities of the packages in the locked image."""
    from screens.image import print_scan
    from workbench.image.vulnerabilities import check_scanned
    from workbench.image.vulnerabilities import scan as scan_image

    found = scan_image(recipe)
    print_scan(found, json=json)
    check_scanned(found)


@app.command()
def dockerfile(recipe: RecipePath) -> None:
    """The Dockerfile of the image, as eject writes it."""
    from workbench.eject import dockerfile as dockerfile_of_image

    typer.echo(dockerfile_of_image(recipe), nl=False)


@app.command()
def eject(recipe: RecipePath, folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new folder")]) -> None:
    """Write the image's Dockerfile and build context to a folder. They need neither workbench nor the recipe."""
    from workbench.eject import eject as eject_image

    names = eject_image(recipe, folder)
    typer.echo(f"{folder}: {', '.join(names)}")


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 8000,
    threads: Annotated[int, typer.Option(help="threads of the session")] = 1,
) -> None:
    """The image's server, on this machine."""
    from workbench.server.errors import ServerError
    from workbench.server.serve import serve as serve_models

    if not model.is_file():
        raise UsageError(f"There is no file {model}.", "Name an ONNX file.")
    try:
        serve_models({model.stem: model}, host=host, port=port, threads=threads)
    except ServerError as error:
        raise UsageError(error.message, error.cure) from error


@app.command()
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


@app.command()
def doctor(json: Json = False) -> None:
    """What this machine has, and how to get what it lacks."""
    from screens.tables import print_table
    from workbench.doctor import examine

    rows = examine(_project())
    print_table(["what", "state", "found", "cure"], rows, json=json)
    if any(row["state"] == "missing" and row["needed"] for row in rows):
        raise MachineLacks("This machine lacks something that a run needs.", "See the table above.")
