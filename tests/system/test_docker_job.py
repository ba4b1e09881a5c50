"""The main job with a container engine and a registry, and the way back from the image alone."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import services
from own_engine import StartEngine, own_engine
from support import git, workbench

from workbench import runs
from workbench.document import read

__all__ = ["own_engine"]

pytestmark = pytest.mark.integration

SECTIONS = """\
image: {{builder: docker, base: {{debian: bookworm}}, limits: {{cpus: 1, memory: 512MiB}}}}
benchmark: {{alone: {{scenario: single-stream, duration: 1s}}}}
push: {{to: "{to}"}}
tolerance: {{latency: 1000, memory: 10}}   # what this shows is not speed, and the machine is shared
"""
RECIPE = "recipes/digits.yaml"


@dataclass(frozen=True)
class Job:
    """A project whose recipe was carried out; ``reference`` is where its image went."""

    project: Path
    reference: str
    engine: str

    def command(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        done = workbench(folder, *words, DOCKER_HOST=self.engine)
        assert done.returncode == 0, done.stderr
        return done

    def run(self) -> dict[str, str]:
        """Carries the recipe out; how each step came about."""
        self.command(self.project, "run", RECIPE)
        return {step.id: step.status for step in runs.state_of(runs.all_runs(self.project)[0]).steps.values()}

    @property
    def image(self) -> dict[str, Any]:
        """What the lock says of the image."""
        found: dict[str, Any] = read(self.project / "recipes" / "digits.lock.yaml").data["artifacts"]["image"]
        return found


@pytest.fixture
def job(project: Path, own_engine: StartEngine, registry: services.Service, tmp_path: Path) -> Job:
    reference = f"{registry.address}/{tmp_path.name.replace('_', '-').lower()}/digits:1"
    path = project / RECIPE
    path.write_text(path.read_text() + SECTIONS.format(to=reference))
    # What is found in an engine of its own was left by this test.
    return Job(project, reference, own_engine().address)


@pytest.fixture
def client(job: Job) -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.DockerClient(base_url=job.engine)) as found:
        yield found


def skopeo(*words: str) -> str:
    return subprocess.run(["skopeo", *words], check=True, capture_output=True, text=True).stdout


def test_from_a_file_to_a_registry_and_back_from_the_reference_alone(
    job: Job, client: docker.DockerClient, tmp_path: Path
) -> None:
    assert set(job.run().values()) == {"done"}

    # What the lock names is what others get from the registry.
    by_digest = job.image["pushed"]
    assert by_digest == f"{job.reference.removesuffix(':1')}@{job.image['manifest']}"
    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{by_digest}"))["Labels"]["workbench.model"]
    checks = json.loads(job.command(tmp_path, "verify", job.reference, "--json").stdout)
    assert {check["state"] for check in checks} == {"ok", "not checked"}

    # Nothing changed: nothing is made, and nothing new is locked.
    before = git(job.project, "rev-parse", "HEAD")
    assert {step for step, status in job.run().items() if status != "reused"} == {"choose", "gates"}
    assert git(job.project, "rev-parse", "HEAD") == before

    # The inputs go beside the image, and the recipe names them there.
    sources = json.loads(job.command(job.project, "push", "--inputs", RECIPE, "--json").stdout)["sources"]
    path = job.project / RECIPE
    text = path.read_text()
    for place, reference in sources.items():
        key = place.split(".")[1]
        old = next(line for line in text.splitlines() if line.strip().startswith(f"{key}:"))
        text = text.replace(old, f'  {key}: {{oci: "{reference}"}}')
    path.write_text(text)
    job.run()

    # Elsewhere there is the reference, and nothing else.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    job.command(elsewhere, "pull-recipe", job.reference)
    done = job.command(elsewhere, "replay", RECIPE)
    assert "reused 0" in done.stdout
    assert [run["recipe"] for run in json.loads(job.command(elsewhere, "runs", "--json").stdout)] == [RECIPE]
    assert (elsewhere / "recipes" / "digits.lock.yaml").read_bytes() == (
        job.project / "recipes" / "digits.lock.yaml"
    ).read_bytes()

    # Whatever was started is gone.
    assert client.containers.list(all=True, filters={"label": "workbench.owner"}) == []
    assert client.networks.list(filters={"label": "workbench.owner"}) == []


def test_a_run_cancelled_while_its_image_runs_leaves_no_container(job: Job, client: docker.DockerClient) -> None:
    mine = {"label": "workbench.owner"}
    with contextlib.closing(client.events(decode=True, filters={**mine, "event": "start"})) as started:
        name = job.command(job.project, "run", RECIPE, "--detach").stdout.strip()
        next(started)
    job.command(job.project, "cancel", name)
    assert runs.state_of(runs.find(job.project, name)).status == "cancelled"
    assert client.containers.list(all=True, filters=mine) == []
