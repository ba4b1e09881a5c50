"""Commands about recipes and their models: written, checked, changed, compared, committed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench.commands.arguments import Json, RecipePath, recipes_of
from workbench.errors import UsageError


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


def validate(
    recipe: Annotated[list[Path], typer.Argument(metavar="RECIPE…")],
    stdin: Annotated[bool, typer.Option("--stdin", help="check the text on stdin as if it stood in RECIPE")] = False,
    json: Json = False,
) -> None:
    """Check recipes: every problem at once, with line and cure."""
    from workbench.document import MAX_BYTES
    from workbench.validate import validated

    recipe = recipes_of(recipe)
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


def schema() -> None:
    """The JSON schema of a recipe, for editors."""
    import json

    from workbench.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def inspect(model: Annotated[Path, typer.Argument(metavar="MODEL")], json: Json = False) -> None:
    """A model's signature, operators, FLOPs and size by layer."""
    from screens.inspect import print_model
    from workbench.model.inspect import inspect as inspect_model

    print_model(inspect_model(model), json=json)


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


def export(
    recipe: RecipePath,
    variant: Annotated[str | None, typer.Argument(metavar="[VARIANT]", help="the chosen one without")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE")] = Path("model.onnx"),
) -> None:
    """Give a compressed model out as a file."""
    from workbench.export import export_variant

    digest = export_variant(recipe, variant, output)
    typer.echo(f"{output} {digest}")
