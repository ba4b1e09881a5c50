"""The command line: every command, thin, in the order of ``--help``. Each imports what it needs when it runs.

Annotations are evaluated as they stand: as texts, each is compiled again for every command, 2 ms of ``--help``.
"""

import sys
from typing import Annotated

import typer

from workbench.commands import images, models, recipes, runs
from workbench.commands.arguments import Json, project_here
from workbench.errors import MachineLacks, UsageError

ABOUT = "Takes a machine-learning model from a file to a compressed, benchmarked, pushed container image."
app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)


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


def doctor(json: Json = False) -> None:
    """What this machine has, and how to get what it lacks."""
    from screens.tables import print_table
    from workbench.doctor import examine

    rows = examine(project_here())
    print_table(["what", "state", "found", "cure"], rows, json=json)
    if any(row["state"] == "missing" and row["needed"] for row in rows):
        raise MachineLacks("This machine lacks something that a run needs.", "See the table above.")


for _name, _command in (
    ("run", runs.run),
    ("new", recipes.new),
    ("replay", runs.replay),
    ("runs", runs.list_runs),
    ("status", runs.status),
    ("watch", runs.watch),
    ("logs", runs.logs),
    ("record", runs.record),
    ("play", runs.play),
    ("report", runs.report),
    ("cancel", runs.cancel),
    ("gc", runs.gc),
    ("validate", recipes.validate),
    ("edit", recipes.edit),
    ("schema", recipes.schema),
    ("inspect", recipes.inspect),
    ("diff", recipes.diff),
    ("history", recipes.list_history),
    ("commit", recipes.commit),
    ("export", recipes.export),
    ("pull-recipe", images.pull_recipe),
    ("verify", images.verify),
    ("sign", images.sign),
    ("image", images.image),
    ("push", images.push),
    ("scan", images.scan),
    ("dockerfile", images.dockerfile),
    ("eject", images.eject),
    ("serve", models.serve),
    ("batch", models.batch),
    ("demo", runs.demo),
    ("doctor", doctor),
):
    app.command(_name)(_command)
