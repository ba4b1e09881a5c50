"""Commands about images: what is in them, what belongs to them, how they are made by hand."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench.commands.arguments import Json, RecipePath, Reference
from workbench.errors import UsageError


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


def image(
    recipe: RecipePath,
    files: Annotated[int, typer.Option(min=0, metavar="N", help="how many files a list shows")] = 10,
    json: Json = False,
) -> None:
    """The last image: layers, biggest files, waste, what changed."""
    from screens.image import print_image
    from workbench.image.report import report

    print_image(report(recipe, files), json=json)


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


def scan(recipe: RecipePath, json: Json = False) -> None:
    """Known vulnerabilities of the packages in the locked image."""
    from screens.image import print_scan
    from workbench.image.vulnerabilities import check_scanned
    from workbench.image.vulnerabilities import scan as scan_image

    found = scan_image(recipe)
    print_scan(found, json=json)
    check_scanned(found)


def dockerfile(recipe: RecipePath) -> None:
    """The Dockerfile of the image, as eject writes it."""
    from workbench.eject import dockerfile as dockerfile_of_image

    typer.echo(dockerfile_of_image(recipe), nl=False)


def eject(recipe: RecipePath, folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new folder")]) -> None:
    """Write the image's Dockerfile and build context to a folder. They need neither workbench nor the recipe."""
    from workbench.eject import eject as eject_image

    names = eject_image(recipe, folder)
    typer.echo(f"{folder}: {', '.join(names)}")
