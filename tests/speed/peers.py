"""What others make of a model file: BentoML and MLflow, in environments of their own, by the commands they document.

Their Dockerfiles are built as they generate them; only the image that ``FROM`` names is a stand-in.
"""

from __future__ import annotations

import re
import shutil
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine import Engine, base
from ground import call, tell

_BENTO_SERVICE = """\
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime

image = bentoml.images.Image(python_version="3.11").python_packages("onnxruntime", "numpy")


@bentoml.service(image=image)
class Products:
    model = bentoml.models.BentoModel("products:latest")

    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(str(Path(self.model.path) / "model.onnx"))

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"x": x.astype(np.float32)})[0]
"""
_BENTO_SAVE = """\
import shutil
import sys

import bentoml

with bentoml.models.create("products") as model:
    shutil.copyfile(sys.argv[1], model.path_of("model.onnx"))
"""
_MLFLOW_SAVE = """\
import sys

import mlflow
import onnx

mlflow.onnx.save_model(onnx.load(sys.argv[1]), "model")
"""


@dataclass(frozen=True)
class Peer:
    """One of the others: its folder and environment, its commands from a model to a build context, how it is asked."""

    name: str
    folder: Path
    version: str
    sources: dict[str, str]
    commands: tuple[tuple[str, ...], ...]
    """``{model}`` stands for the model's file; each is a program of the environment with its arguments."""
    context: Callable[[Path], tuple[Path, Path]]
    """From the folder after the commands to the build's context and the Dockerfile."""
    left: tuple[str, ...]
    """What an earlier round left in the folder."""
    port: int
    path: str
    request: str
    """The body of a request, in which ``{rows}`` stands for the input."""

    def pack(self, model: Path) -> float:
        """Runs the commands on ``model``; seconds. What an earlier round left is removed before."""
        for name in self.left:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name, text in self.sources.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        start = time.perf_counter()
        for program, *words in self.commands:
            told = [word.replace("{model}", str(model)) for word in words]
            call(self.folder / "env" / "bin" / program, *told, folder=self.folder, environment=self._environment)
        self.context(self.folder)
        return time.perf_counter() - start

    def build(self, engine: Engine, tag: str) -> float:
        """Builds the image from what :meth:`pack` made; seconds."""
        context, dockerfile = self.context(self.folder)
        found = re.search(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE)
        if found is None:
            raise SystemExit(f"{dockerfile} has no FROM.")
        engine.docker("tag", base(engine), found[1])
        return engine.build(tag, context, dockerfile)

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "BENTOML_HOME": str(self.folder / "home"),
            "BENTOML_DO_NOT_TRACK": "True",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "ORT_DISABLE_TELEMETRY": "1",
        }


def bentoml(folder: Path) -> Peer:
    """BentoML: a service class over onnxruntime."""
    version = _install(folder, "bentoml", "onnxruntime")
    return Peer(
        "BentoML",
        folder,
        version,
        {"project/service.py": _BENTO_SERVICE, "save.py": _BENTO_SAVE},
        (("python", "save.py", "{model}"), ("bentoml", "build", "project")),
        _bento_context,
        ("home", "project"),
        3000,
        "/predict",
        '{"x": {rows}}',
    )


def _bento_context(folder: Path) -> tuple[Path, Path]:
    """The newest bento with its models beside it, as ``bentoml containerize`` lays them.

    That command itself asks for a frontend of BuildKit from a registry.
    """
    store = folder / "home" / "bentos" / "products"
    context = store / (store / "latest").read_text().strip()
    if not (context / "models").exists():
        shutil.copytree(folder / "home" / "models", context / "models")
    return context, context / "env" / "docker" / "Dockerfile"


def mlflow(folder: Path) -> Peer:
    """MLflow: its ONNX flavour and the scoring server."""
    version = _install(folder, "mlflow", "onnx", "onnxruntime")
    return Peer(
        "MLflow",
        folder,
        version,
        {"save.py": _MLFLOW_SAVE},
        (
            ("python", "save.py", "{model}"),
            ("mlflow", "models", "generate-dockerfile", "-m", "model", "-d", "context"),
        ),
        lambda folder: (folder / "context", folder / "context" / "Dockerfile"),
        ("model", "context"),
        8080,
        "/invocations",
        '{"inputs": {rows}}',
    )


def _install(folder: Path, *packages: str) -> str:
    """Installs the packages into ``env`` of the folder once; the version of the first."""
    python = folder / "env" / "bin" / "python"
    finished = folder / "installed"
    if not finished.exists():
        tell(f"Installing {packages[0]} into {folder / 'env'}.")
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder / "env", with_pip=True)
        call(python, "-m", "pip", "install", "--quiet", *packages, folder=folder)
        ask = f"from importlib.metadata import version; print(version({packages[0]!r}))"
        finished.write_text(call(python, "-c", ask, folder=folder))
    return finished.read_text().strip()
