"""An image whose recipe asks for tracing has what sends spans, and sends them where it is told to, else nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests
from digits_image import Image
from otlp_receiver import Receiver, receiver, values
from recipe_image import loaded, made, packages, step

from workbench.assets import asset
from workbench.image.sandbox import Container

__all__ = ["receiver"]


def test_only_a_recipe_that_asks_for_it_gets_it(tmp_path: Path) -> None:
    without, having = loaded(tmp_path / "a", ""), loaded(tmp_path / "b", ", tracing: true")
    exporter = {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "protobuf"}
    assert packages(having) - packages(without) == exporter
    assert "tracing" not in without.recipe.normal_form()["image"]
    assert having.recipe.normal_form()["image"]["tracing"] is True
    assert step(having, "image").params == step(without, "image").params, "how a container runs is the same"
    both = loaded(tmp_path / "c", ", tracing: true, grpc: 8001")
    assert packages(both) - packages(without) == exporter | {"grpcio"}


@contextmanager
def contacts(container: Container, log: Path) -> Iterator[set[str]]:
    """What the server reaches out to until it has ended, by ``address:port``; known after the block."""
    found: set[str] = set()
    command = ["strace", "--follow-forks", "--trace=connect,sendto,sendmsg,sendmmsg", f"--output={log}", "--attach"]
    with subprocess.Popen([*command, str(container.pid)], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        yield found
        container.stop()
        strace.stderr.read()
    pairs = re.findall(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)', log.read_text())
    found.update(f"{address}:{port}" for port, address in pairs)


@pytest.mark.integration
def test_spans_go_where_the_environment_says_and_nothing_goes_anywhere_else(
    image: Image, tmp_path: Path, receiver: Receiver
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    root, config = made(loaded(tmp_path / "project", ", tracing: true"), image, tmp_path)
    assert not (root / "opt/wheels/certifi/cacert.pem").exists(), "the base's authorities are those that count"
    with np.load(asset("digits/test.npz")) as data:
        body = {"instances": data["x"][:2].astype(np.float32).tolist()}
    for environment in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}):
        with Container(root, config, env=environment) as container:
            with contacts(container, tmp_path / "log") as reached:
                answer = requests.post(f"{container.url}/v1/models/digits:predict", json=body, timeout=30)
            container.stop()
        assert answer.status_code == 200
        assert ("traceparent" in answer.headers) == bool(environment)
        assert reached == ({f"127.0.0.1:{receiver.port}"} if environment else set())
    [(service, span)] = receiver.everything()
    assert service == "workbench-server"
    assert values(span.attributes)["inference.model.name"] == "digits"
    assert span.trace_id.hex() == answer.headers["traceparent"].split("-")[1]
