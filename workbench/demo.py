"""The demo's project: a folder with its own git repository, the shipped recipe and its model and data."""

from __future__ import annotations

import shutil
from pathlib import Path

from workbench.assets import asset, shipped_recipe
from workbench.errors import MachineLacks, UsageError

_FILES = ("digits.onnx", "test.npz", "calibrate.npz")


def make_project(folder: Path) -> Path:
    """Makes the project in ``folder`` if it is not there yet; the path of its recipe. Existing files stay."""
    import git

    recipe = folder.resolve() / "recipes" / "digits.yaml"
    if recipe.exists():
        return recipe
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no demo.", "Name another folder: workbench demo FOLDER")
    try:
        (folder / "assets" / "digits").mkdir(parents=True)
        recipe.parent.mkdir()
        for name in _FILES:
            shutil.copyfile(asset("digits") / name, folder / "assets" / "digits" / name)
        shutil.copyfile(shipped_recipe("digits"), recipe)
        repo = git.Repo.init(folder, initial_branch="main")
    except OSError as error:
        raise MachineLacks(f"{folder} cannot be made: {error.strerror}.", "Name a folder that is writable.") from error
    except git.GitCommandNotFound:
        raise MachineLacks("git is not installed.", "Install it: apt-get install git") from None
    _identify(repo)
    (folder / ".gitignore").write_text(".workbench/\n")
    repo.git.add("--all")
    repo.git.commit("--quiet", "--message", "The demo's model, data and recipe")
    return recipe


def _identify(repo: object) -> None:
    """Gives the demo's repository an author where the user has configured none."""
    import git

    assert isinstance(repo, git.Repo)
    with repo.config_reader() as reader:
        known = reader.has_option("user", "email")
    if not known:
        with repo.config_writer() as writer:
            writer.set_value("user", "name", "workbench demo").set_value("user", "email", "demo@workbench.invalid")
