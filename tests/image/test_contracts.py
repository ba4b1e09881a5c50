"""The built image, started as each platform starts it, and asked as each asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from image_helpers import Image

from workbench.assets import asset
from workbench.image.sandbox import Container
from workbench.server.session import open_session

pytestmark = pytest.mark.integration

Start = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def start(root: Path, image: Image, tmp_path: Path) -> Start:
    """Starts the image with arguments and an environment, on a read-only root; gives where it answers."""

    @contextmanager
    def started(*arguments: str, **environment: str) -> Iterator[str]:
        config = json.loads(image.files["config"].read_bytes())
        config["config"]["Cmd"] = list(arguments)
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        with Container(root, path, env=environment) as container:
            yield container.url

    return started


@pytest.fixture(scope="module")
def asked() -> tuple[list[Any], list[Any]]:
    """Two digits as instances, and what the model itself predicts of them."""
    session = open_session(asset("digits/digits.onnx"), 1)
    with np.load(asset("digits/test.npz")) as data:
        digits = data["x"][:2].astype(np.float32)
    [predicted] = session.run(None, {session.get_inputs()[0].name: digits})
    return digits.tolist(), predicted.tolist()


def predictions(address: str, instances: list[Any]) -> list[Any]:
    answer = requests.post(address, json={"instances": instances}, timeout=30)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["predictions"]
    return found


def test_sagemaker_runs_it_with_serve_and_binds_it_to_a_port(start: Start, asked: tuple[list[Any], list[Any]]) -> None:
    with start("serve", SAGEMAKER_BIND_TO_PORT="0") as url:
        answer = requests.get(f"{url}/ping", timeout=2)
        assert (answer.status_code, answer.content) == (200, b"")
        assert predictions(f"{url}/invocations", asked[0]) == asked[1]
        refused = requests.post(f"{url}/invocations", data="1,2", headers={"Content-Type": "text/csv"}, timeout=30)
        assert refused.status_code == 415


def test_vertex_sets_port_and_routes(start: Start, asked: tuple[list[Any], list[Any]]) -> None:
    route = "/v1/endpoints/123/deployedModels/456"
    environment = {
        "AIP_MODE": "PREDICTION",
        "AIP_HTTP_PORT": "0",
        "AIP_HEALTH_ROUTE": route,
        "AIP_PREDICT_ROUTE": f"{route}:predict",
        "AIP_STORAGE_URI": "gs://bucket/model",
    }
    with start(**environment) as url:
        assert requests.get(url + route, timeout=10).status_code == 200
        assert predictions(f"{url}{route}:predict", asked[0]) == asked[1]
        refused = requests.post(f"{url}{route}:predict", json={"instances": [[0]]}, timeout=30)
        assert (refused.status_code, list(refused.json())) == (400, ["error"])


def test_azure_probes_its_root_and_scores(start: Start, asked: tuple[list[Any], list[Any]]) -> None:
    with start(AZUREML_MODEL_DIR="/var/azureml-app/azureml-models/digits/1", SERVER_PORT="0") as url:
        assert requests.get(f"{url}/", timeout=10).status_code == 200
        assert predictions(f"{url}/score", asked[0]) == asked[1]
        refused = requests.post(f"{url}/score", json={"instances": [[0]]}, timeout=30)
        assert (refused.status_code, list(refused.json())) == (400, ["message"])


def test_kserve_and_kubernetes_set_nothing(start: Start, asked: tuple[list[Any], list[Any]]) -> None:
    with start() as url:
        for path in ("/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"):
            assert requests.get(url + path, timeout=10).status_code == 200
        assert requests.get(f"{url}/v1/models", timeout=10).json() == {"models": ["digits"]}
        assert requests.get(f"{url}/v1/models/digits", timeout=10).json() == {"name": "digits", "ready": True}
        assert predictions(f"{url}/v1/models/digits:predict", asked[0]) == asked[1]
        document = requests.get(f"{url}/openapi.json", timeout=30).json()
        assert "/v1/models/digits:predict" in document["paths"]
        for path in ("/ping", "/invocations", "/score", "/"):
            assert requests.get(url + path, timeout=10).status_code == 404
