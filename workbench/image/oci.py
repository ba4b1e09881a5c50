"""The config and manifest of an image, as the OCI image specification 1.1 defines them.

The config names the layers by their content, so its digest is the same whichever zlib packed them; the manifest names
the blobs. A health check is no part of the OCI specification; engines that know Docker's (Docker, Podman with
``--format docker``) read ``Healthcheck`` in the config, others ignore the field as the specification asks them to, and
the manifest's annotation :data:`HEALTHCHECK_ANNOTATION` tells the same to whoever deploys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import workbench
from workbench.errors import UsageError
from workbench.image.base import SUITES
from workbench.image.compile_sources import FOLDER as BYTECODE
from workbench.image.content import APP, MODELS
from workbench.image.downloads import sha256_of
from workbench.image.layers import canonical
from workbench.image.rootfs import APP_USER
from workbench.image.unwheel import ROOT as WHEELS
from workbench.steps import Emit, Outputs

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ORDER = ("base", "wheels", "server", "bytecode", "model")
"""From what changes least to what changes most: a new model is one new layer."""

HEALTHCHECK_ANNOTATION = "workbench.healthcheck"

_SECOND = 1_000_000_000
_HEALTH = f"/{APP}/workbench/server/health.py"


def interpreter(python: str) -> str:
    """The path of Python in the image."""
    return f"/usr/bin/python{python}"


def _environment(port: int, grpc: int | None, device: str) -> list[str]:
    values = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        # Without it Python asks the name services for the user's home as it starts.
        "HOME": "/tmp",  # noqa: S108 - the one folder that is writable on a read-only root
        "PYTHONPATH": f"/{WHEELS}:/{APP}",
        # Nothing from the working folder is imported, nothing is written: the image runs read-only.
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": f"/{BYTECODE}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        "ORT_DISABLE_TELEMETRY": "1",
        # OpenBLAS starts a thread a core when numpy is imported; onnxruntime has its own, one for each CPU it may use.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "WORKBENCH_HOST": "0.0.0.0",  # noqa: S104 - a container's own network; the engine decides who reaches it
        "WORKBENCH_PORT": str(port),
        "WORKBENCH_MODELS": f"/{MODELS}",
    }
    if grpc:
        values["WORKBENCH_GRPC_PORT"] = str(grpc)
    if device == "cuda":
        values |= {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
        values["WORKBENCH_DEVICE"] = device
    return [f"{name}={value}" for name, value in sorted(values.items())]


def runtime_config(params: Mapping[str, Any], model_digest: str) -> dict[str, Any]:
    """How a container of the image runs: the ``config`` part of its config, whichever builder makes it.

    ``params`` as for :func:`assemble`; with ``interpreter``, Python lies there.
    """
    python = params.get("interpreter") or interpreter(params["python"])
    port, grpc = params["port"], params.get("grpc")
    return {
        "User": f"{APP_USER}:{APP_USER}",
        "ExposedPorts": {f"{each}/tcp": {} for each in (port, grpc) if each},
        "Env": _environment(port, grpc, params["device"]),
        "Entrypoint": [python, "-m", "workbench.server"],
        "WorkingDir": "/",
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", python, "-S", _HEALTH],
            "Interval": 10 * _SECOND,
            "Timeout": 5 * _SECOND,
            "StartPeriod": 30 * _SECOND,
            "Retries": 3,
        },
        "Labels": {
            "org.opencontainers.image.title": params["name"],
            # A multi-container endpoint of SageMaker takes only images that say they honour SAGEMAKER_BIND_TO_PORT.
            "com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true",
            "workbench.version": workbench.__version__,
            "workbench.model": model_digest,
        },
    }


def timestamp(created: int) -> str:
    """``created`` (seconds since 1970) as an image's config has it."""
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def image_config(params: Mapping[str, Any], layers: Sequence[Mapping[str, Any]], model_digest: str) -> dict[str, Any]:
    """The image's config for these ``layers`` (descriptors, lowest first); see :func:`assemble` for ``params``."""
    created = timestamp(params["created"])
    return {
        "architecture": layers[0]["architecture"],
        "os": "linux",
        "created": created,
        "config": runtime_config(params, model_digest),
        "rootfs": {"type": "layers", "diff_ids": [layer["diff_id"] for layer in layers]},
        "history": history_of(layers, created),
    }


def history_of(layers: Sequence[Mapping[str, Any]], created: str) -> list[dict[str, Any]]:
    """A line of history for each layer, that says nothing of where it was made."""
    return [{"created": created, "created_by": f"workbench {layer['name']}"} for layer in layers]


def image_manifest(config: bytes, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest that binds the ``config`` bytes and the blobs of ``layers``."""
    healthcheck = json.loads(config)["config"]["Healthcheck"]["Test"]
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{key: layer[key] for key in ("mediaType", "digest", "size")} for layer in layers],
        "annotations": {HEALTHCHECK_ANNOTATION: canonical(healthcheck[1:]).decode()},
    }


def digest_of(data: bytes) -> str:
    """``sha256:…`` of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def assemble(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Writes ``config`` and ``manifest`` over the layers' descriptors :data:`ORDER`.

    ``model_file`` is the model itself, for the label with its digest. ``params``: ``name`` (the image's title),
    ``created`` (seconds since 1970), ``python`` (``"3.11"``), ``device`` (``cpu`` or ``cuda``), ``port`` and, where the
    server speaks gRPC, its port as ``grpc``. Raises UsageError where the base has another Python.
    """
    layers = [json.loads(inputs[name].read_bytes()) for name in ORDER]
    has = SUITES[layers[0]["debian"]].python
    if params["python"] != has or layers[1]["python"] != has:
        raise UsageError(
            f"Debian {layers[0]['debian']} has Python {has}, and the recipe asks for {params['python']}.",
            f'Write python: "{has}".',
        )
    config = canonical(image_config(params, layers, f"sha256:{sha256_of(inputs['model_file'])}"))
    manifest = canonical(image_manifest(config, layers))
    (emit.scratch / "config").write_bytes(config)
    (emit.scratch / "manifest").write_bytes(manifest)
    values = {
        "config": digest_of(config),
        "manifest": digest_of(manifest),
        "size": sum(layer["size"] for layer in layers) + len(config),
        "uncompressed": sum(layer["uncompressed"] for layer in layers),
        "layers": layers,
    }
    return Outputs({"config": emit.scratch / "config", "manifest": emit.scratch / "manifest"}, values)
