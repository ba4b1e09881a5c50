"""Who is measured: ours, five others, and what none can go below, each installed in an environment of its own and
started as it documents.

Every side opens its session by the same function, so with the same options and one thread, and has one worker. Access
logs are off where that can be said.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ground import ROOT, call, tell
from serving import served_models
from wrk import Request

PEERS = Path(__file__).parent / "peers"
OURS = "workbench"
FLOOR = "bare uvloop"
"""No peer: what nobody can go below."""


@dataclass(frozen=True)
class Side:
    """One of those that are measured."""

    name: str
    folder: Path
    packages: Sequence[str]
    """What is installed, the one whose version counts first."""
    command: Sequence[str]
    """A program of the environment with its arguments; ``{port}`` stands for the port."""
    requests: Mapping[tuple[str, str], Request]
    """By model and form: ``json`` or ``binary``."""
    note: str = ""
    """How a binary tensor is sent."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that it wants in the folder that it is started in; ``{port}`` and ``{other}``: ports."""
    source: Sequence[Path] = ()
    """Files outside of the environment that belong to what is installed."""

    @property
    def python(self) -> Path:
        return self.folder / "env" / "bin" / "python"

    @property
    def version(self) -> str:
        return (self.folder / "installed").read_text().strip()

    def install(self) -> None:
        """Installs it once for each list of packages; SystemExit, with what pip said, where that cannot be."""
        finished, wanted = self.folder / "installed", "\n".join(self.packages)
        listed = self.folder / "packages"
        if finished.exists() and listed.exists() and listed.read_text() == wanted:
            return
        tell(f"Installing {self.name} into {self.folder / 'env'}.")
        shutil.rmtree(self.folder, ignore_errors=True)
        venv.create(self.folder / "env", with_pip=True)
        call(self.python, "-m", "pip", "install", "--quiet", *self.packages, folder=self.folder)
        listed.write_text(wanted)
        if self.name == OURS:
            finished.write_text(call(self.python, "-c", "import workbench; print(workbench.__version__)", folder=ROOT))
            return
        name = self.packages[0].partition("[")[0]
        ask = f"from importlib.metadata import version; print(version({name!r}))"
        finished.write_text(call(self.python, "-c", ask, folder=self.folder))

    def size(self) -> int:
        """Bytes of what is installed, compiled modules included, without pip."""
        (packages,) = (self.folder / "env" / "lib").glob("python*/site-packages")
        left = ("pip", "pip-", "setuptools", "_distutils_hack", "distutils-precedence")
        kept = [each for each in packages.iterdir() if not each.name.startswith(left)]
        return sum(_bytes_of(each) for each in (*kept, *self.source))

    def prepared(self, port: int) -> tuple[list[str], Path]:
        """The command that serves at ``port``, and the folder to start it in."""
        for name, text in self.files.items():
            (self.folder / name).write_text(text.replace("{port}", str(port)).replace("{other}", str(free_port())))
        program, *words = (word.replace("{port}", str(port)) for word in self.command)
        return [str(self.python.with_name(program)), *words], self.folder


def all_sides(folder: Path) -> list[Side]:
    """Ours first, last the floor."""
    runtime = ("onnxruntime", "numpy")
    server = (ROOT / "assets" / "image" / "requirements.txt").read_text().splitlines()
    ours = [line for line in server if line and not line.startswith("#")]
    return [
        Side(
            OURS,
            folder / OURS,
            ("onnxruntime", *ours),
            ("python", "-m", "workbench.server"),
            _protocol(binary=True),
            "binary tensor extension",
            source=(ROOT / "workbench" / "__init__.py", ROOT / "workbench" / "server"),
        ),
        Side(
            "FastAPI",
            folder / "fastapi",
            ("fastapi", "uvicorn", "httptools", "uvloop", *runtime),
            (
                *("uvicorn", "fastapi_service:app", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1"),
                *("--http", "httptools", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"),
            ),
            {
                **{(name, "json"): Request("/predict", _flat(name)) for name in ("mlp", "slow", "image")},
                ("image", "binary"): _raw("/raw"),
            },
            "raw bytes",
        ),
        Side(
            "LitServe",
            folder / "litserve",
            ("litserve", *runtime),
            ("python", str(PEERS / "litserve_service.py")),
            {
                **{(name, "json"): Request("/predict", _flat(name)) for name in ("mlp", "slow", "image")},
                ("image", "binary"): Request("/predict", _base64("image")),
            },
            "base64 in JSON",
        ),
        Side(
            "MLServer",
            folder / "mlserver",
            ("mlserver", *runtime),
            ("mlserver", "start", "."),
            _protocol(binary=False),
            "JSON: it reads no binary tensors over HTTP",
            files={
                "model-settings.json": '{"name": "m", "implementation": "mlserver_runtime.Onnx"}',
                "settings.json": '{"host": "127.0.0.1", "http_port": {port}, "grpc_port": {other}, '
                '"metrics_endpoint": null, "parallel_workers": 0, "debug": false}',
            },
        ),
        Side(
            "BentoML",
            folder / "bentoml",
            ("bentoml", *runtime),
            ("bentoml", "serve", "bentoml_service:Onnx", "--host", "127.0.0.1", "--port", "{port}"),
            {
                **{(name, "json"): Request("/predict", _nested(name)) for name in ("mlp", "slow", "image")},
                ("image", "binary"): _raw("/raw"),
            },
            "raw bytes, as a file",
        ),
        Side(
            "KServe",
            folder / "kserve",
            ("kserve", *runtime),
            ("python", str(PEERS / "kserve_service.py")),
            _protocol(binary=True),
            "binary tensor extension",
        ),
        Side(
            FLOOR,
            folder / "floor",
            ("uvloop", *runtime),
            ("python", str(PEERS / "floor_service.py"), "{port}"),
            _protocol(binary=True),
            "not read",
        ),
    ]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


# --- requests


def _protocol(*, binary: bool) -> dict[tuple[str, str], Request]:
    """As the Open Inference Protocol has them; without ``binary`` the image is JSON in either form."""
    path = "/v2/models/m/infer"
    found = {(name, "json"): Request(path, _tensor(name)) for name in ("mlp", "slow", "image")}
    if not binary:
        return {**found, ("image", "binary"): found["image", "json"]}
    x = served_models.example("image")
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return {**found, ("image", "binary"): Request(path, head + x.tobytes(), headers)}


def _tensor(name: str) -> bytes:
    x = served_models.example(name)
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def _flat(name: str) -> bytes:
    x = served_models.example(name)
    return json.dumps({"shape": x.shape, "data": x.ravel().tolist()}).encode()


def _nested(name: str) -> bytes:
    return json.dumps({"x": served_models.example(name).tolist()}).encode()


def _base64(name: str) -> bytes:
    x = served_models.example(name)
    return json.dumps({"shape": x.shape, "raw": base64.b64encode(x.tobytes()).decode()}).encode()


def _raw(path: str) -> Request:
    return Request(path, served_models.example("image").tobytes(), {"Content-Type": "application/octet-stream"})


def write_input(file: Path, name: str) -> Path:
    """The example as a file for the bare loop."""
    np.save(file, served_models.example(name))
    return file


def _bytes_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file() and not each.is_symlink())
