"""The OpenAPI document, and schemathesis against a real server with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from server_models import affine, identity, lookup
from server_process import Process, running

CONFIG = """
[checks]
# What JSON Schema cannot say is refused with 400; a timeout of a microsecond is answered with 504.
positive_data_acceptance.expected-statuses = ["2xx", 400, 403, 404, 406, 415, 504]
not_a_server_error.expected-statuses = ["2xx", "4xx", 504]

[phases.stateful]
enabled = false
"""


@pytest.fixture(scope="module", params=["plain", "sagemaker", "azureml"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server over affine, identity and lookup, as each platform starts it."""
    folder = tmp_path_factory.mktemp("models")
    affine(folder / "affine" / "3" / "model.onnx")
    identity(folder / "identity" / "1" / "model.onnx")
    lookup(folder / "lookup" / "1" / "model.onnx")
    settings = {
        "plain": {"WORKBENCH_INPUT_STATS": "1"},
        "sagemaker": {"SAGEMAKER_BIND_TO_PORT": "0", "WORKBENCH_PLATFORM_MODEL": "affine"},
        "azureml": {"WORKBENCH_PLATFORM": "azureml", "SERVER_PORT": "0", "WORKBENCH_PLATFORM_MODEL": "lookup"},
    }
    with running(folder, **settings[request.param]) as found:
        yield found


@pytest.fixture
def document(server: Process) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{server.url}/openapi.json", timeout=30).json()
    return found


def test_it_has_every_address(server: Process, document: dict[str, Any], request: pytest.FixtureRequest) -> None:
    paths = {f"{method} {path}" for path, methods in document["paths"].items() for method in methods}
    always = {
        *("get /v2", "get /v2/health/live", "get /v2/health/ready", "get /v1/models", "get /metrics"),
        *("get /openapi.json", "get /livez", "get /readyz", "get /healthz", "post /v2/repository/index"),
        *("post /v2/repository/models/{name}/load", "post /v2/repository/models/{name}/unload"),
        *("get /v2/models/stats", "get /v2/models/drift"),
    }
    for name, version in (("affine", "3"), ("identity", "1"), ("lookup", "1")):
        for at in ("", f"/versions/{version}"):
            always |= {f"get /v2/models/{name}{at}", f"get /v2/models/{name}{at}/config"}
            always |= {f"get /v2/models/{name}{at}/stats", f"get /v2/models/{name}{at}/drift"}
            always |= {f"get /v2/models/{name}{at}/ready", f"get /v1/models/{name}{at}"}
            always |= {f"post /v2/models/{name}{at}/infer", f"post /v1/models/{name}{at}:predict"}
    platform = {"plain": set(), "sagemaker": {"get /ping", "post /invocations"}, "azureml": {"get /", "post /score"}}
    assert paths == always | platform[request.node.callspec.params["server"]]


def test_it_has_the_models_signatures(document: dict[str, Any]) -> None:
    asked = document["paths"]["/v2/models/affine/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    right = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    jsonschema.validate({"inputs": [right]}, asked)
    for wrong in ({"name": "y"}, {"shape": [1, 4]}, {"shape": [3]}, {"datatype": "FP64"}, {"data": ["1"]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"inputs": [right | wrong]}, asked)
    rows = document["paths"]["/v1/models/affine:predict"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    jsonschema.validate({"instances": [[1, 2, 3]]}, rows)
    jsonschema.validate({"instances": [{"x": [1, 2, 3]}]}, rows)
    for row in ([1, 2], 1, {"y": [1, 2, 3]}, ["1", 2, 3]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"instances": [row]}, rows)


def test_its_examples_are_answered(server: Process, document: dict[str, Any]) -> None:
    for name in ("affine", "identity", "lookup"):
        path = f"/v2/models/{name}/infer"
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert requests.post(server.url + path, json=example, timeout=30).status_code == 200


def test_schemathesis_finds_nothing(server: Process, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    # A platform's server has the addresses of the plain one beside its own.
    own = {"plain": [], "sagemaker": ["/ping", "/invocations"], "azureml": ["/", "/score"]}
    chosen = [word for path in own[request.node.callspec.params["server"]] for word in ("--include-path", path)]
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml", "run"]
    options = ["--max-examples", "10", "--seed", "1", "--no-color", "--generation-database", "none"]
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json", *options, *chosen],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
