"""``docker run IMAGE serve``, as SageMaker has it: on 8080, whatever port the image has."""

from __future__ import annotations

import docker
import numpy as np
import pytest
import requests
from digits_image import Image
from engine_helpers import Loaded

from workbench.assets import asset
from workbench.engine.container import READY_LINE
from workbench.engine.watch import _close


@pytest.mark.integration
def test_the_image_takes_serve_and_answers_sagemakers_addresses(
    client: docker.DockerClient, image: Image, loaded: Loaded
) -> None:
    found = loaded(client, image.files["config"])
    container = client.containers.create(found, ["serve"], read_only=True, ports={"8080/tcp": ("127.0.0.1", None)})
    try:
        container.start()
        said = b""
        parts = container.logs(stream=True, follow=True)
        while READY_LINE.encode() not in said:
            said += next(parts)
        _close(parts)
        assert b"http://0.0.0.0:8080" in said, said
        container.reload()
        [bound] = container.ports["8080/tcp"]
        url = f"http://127.0.0.1:{bound['HostPort']}"
        assert requests.get(f"{url}/ping", timeout=30).status_code == 200
        with np.load(asset("digits/test.npz")) as data:
            digits = data["x"][:3].astype(np.float32).tolist()
        answer = requests.post(f"{url}/invocations", json={"instances": digits}, timeout=30)
        assert np.array(answer.json()["predictions"]).shape == (3, 10)
        container.stop()
        assert container.wait()["StatusCode"] == 0
    finally:
        container.remove(force=True)
