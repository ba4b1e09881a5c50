"""An engine finds a container healthy, whichever port its server took and whoever is let in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker
import pytest
from authority import Authority
from digits_image import Image
from engine_helpers import Loaded

pytestmark = pytest.mark.integration

VERTEX = {"AIP_HTTP_PORT": "7080", "AIP_HEALTH_ROUTE": "/well", "AIP_PREDICT_ROUTE": "/predict"}


def health(client: docker.DockerClient, image: str, arguments: list[str], **how: Any) -> str:
    """What the engine finds first, and then, where that was not good, the check's own words."""
    # The engine's first check comes after an interval; all else is the image's own.
    container = client.containers.create(
        image, arguments, read_only=True, cap_drop=["ALL"], healthcheck={"interval": 500_000_000}, **how
    )
    try:
        events = client.events(decode=True, filters={"container": container.id, "event": "health_status"})
        container.start()
        found = next(events)["Action"]
        events.close()
        if found != "health_status: healthy":
            container.reload()
            return f"{found}: {container.attrs['State']['Health']['Log']} {container.logs()}"
        return "healthy"
    finally:
        container.remove(force=True)


@pytest.mark.parametrize("more", [{}, {"environment": VERTEX}, {"init": True}], ids=["serve", "vertex", "init"])
def test_the_port_that_a_platform_has_it_take_is_asked(
    client: docker.DockerClient, image: Image, loaded: Loaded, more: dict[str, Any]
) -> None:
    arguments = [] if "environment" in more else ["serve"]
    assert health(client, loaded(client, image.files["config"]), arguments, **more) == "healthy"


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual-tls"])
def test_tls_is_spoken_where_the_server_speaks_it(
    client: docker.DockerClient, image: Image, loaded: Loaded, tmp_path: Path, mutual: bool
) -> None:
    ours = Authority(tmp_path / "tls")
    paths = dict(zip(("CERT", "KEY"), ours.certificate("server"), strict=True)) | (
        {"CLIENT_CA": ours.path} if mutual else {}
    )
    environment = {f"WORKBENCH_TLS_{name}": f"/tls/{path.name}" for name, path in paths.items()}
    volumes = {str(tmp_path / "tls"): {"bind": "/tls", "mode": "ro"}}
    assert (
        health(client, loaded(client, image.files["config"]), [], environment=environment, volumes=volumes) == "healthy"
    )
