"""What engines say becomes errors with a remedy: provoked from the real engine where it can be, else in its words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import services
from engine_helpers import WAIT, Loaded, Program

from workbench.engine.errors import out_of_memory, told
from workbench.errors import MachineLacks, StepFailed, UsageError, WorkbenchError


def failure(what: Callable[[], Any]) -> WorkbenchError:
    """The error of an engine, as told."""
    with pytest.raises((docker.errors.DockerException, OSError)) as caught:
        what()
    return told(caught.value, "testing")


@pytest.fixture
def container(client: docker.DockerClient, program: Program, loaded: Loaded) -> Callable[..., Any]:
    """Makes a container with these options of the host, whose name is taken after the first."""
    found = loaded(client, program(WAIT))

    def make(name: str | None = None, platform: str | None = None, **host: Any) -> str:
        config = client.api.create_host_config(**host)
        return str(client.api.create_container(found, name=name, platform=platform, host_config=config)["Id"])

    return make


@pytest.mark.integration
def test_a_name_in_use_is_told_and_its_container_left_alone(
    client: docker.DockerClient, container: Callable[..., Any]
) -> None:
    somebodys = container(name="somebodys-server")
    error = failure(lambda: container(name="somebodys-server"))
    assert isinstance(error, StepFailed)
    assert error.message.startswith("A container of somebody else has that name")
    client.api.remove_container(somebodys)


@pytest.mark.integration
def test_limits_that_the_engine_does_not_take_are_told(container: Callable[..., Any]) -> None:
    small = failure(lambda: container(mem_limit=1 << 20))
    assert (type(small), "image.limits.memory" in small.cure) == (UsageError, True)
    many = failure(lambda: container(nano_cpus=1000 * 10**9))
    assert (type(many), "image.limits.cpus" in many.cure) == (MachineLacks, True)
    other = failure(lambda: container(cpuset_cpus="900"))
    assert isinstance(other, MachineLacks)


@pytest.mark.integration
def test_another_platform_is_told(container: Callable[..., Any]) -> None:
    error = failure(lambda: container(platform="linux/s390x"))
    assert isinstance(error, MachineLacks)
    assert "not for this machine's platform" in error.message


@pytest.mark.integration
def test_what_is_not_there_is_told(client: docker.DockerClient, container: Callable[..., Any]) -> None:
    image = failure(lambda: client.api.create_container("workbench.local/nothing:1"))
    assert (type(image), "does not have the image" in image.message) == (StepFailed, True)
    gone = failure(lambda: client.api.start("0" * 64))
    assert (type(gone), "removed by somebody else" in gone.message) == (StepFailed, True)
    idle = container()
    assert "ended or removed by somebody else" in failure(lambda: client.api.kill(idle)).message
    client.api.remove_container(idle)


@pytest.mark.integration
def test_what_a_registry_refuses_is_told(client: docker.DockerClient, registry: services.Service) -> None:
    missing = failure(lambda: client.api.pull(f"{registry.address}/nothing", tag="1"))
    assert (type(missing), "no such image" in missing.message) == (MachineLacks, True)
    unreachable = failure(lambda: client.api.pull("127.0.0.1:9/nothing", tag="1"))
    assert (type(unreachable), "does not reach the registry" in unreachable.message) == (MachineLacks, True)
    strange = failure(lambda: client.api.pull("registry.invalid/nothing", tag="1"))
    assert (type(strange), "does not reach the registry" in strange.message) == (MachineLacks, True)


@pytest.mark.integration
def test_an_image_for_other_architectures_only_is_told(client: docker.DockerClient, registry: services.Service) -> None:
    url = f"http://{registry.address}/v2/foreign"
    # The registry wants the manifest that the list names to be there.
    config = _put_blob(url, b"{}")
    single = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": []}).encode()
    digest = f"sha256:{hashlib.sha256(single).hexdigest()}"
    _put(f"{url}/manifests/{digest}", single, _MANIFEST)
    entry = {"mediaType": _MANIFEST, "digest": digest, "size": len(single)}
    platform = {"os": "linux", "architecture": "s390x"}
    index = {"schemaVersion": 2, "mediaType": _LIST, "manifests": [{**entry, "platform": platform}]}
    _put(f"{url}/manifests/1", json.dumps(index).encode(), _LIST)
    lines = client.api.pull(f"{registry.address}/foreign", tag="1", stream=True, decode=True)
    [said] = [line["error"] for line in lines if "error" in line]
    error = told(said, "pulling")
    assert (type(error), "not for this machine's platform" in error.message) == (MachineLacks, True)


_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def _put(url: str, data: bytes, media_type: str) -> None:
    requests.put(url, data=data, headers={"Content-Type": media_type}, timeout=30).raise_for_status()


def _put_blob(url: str, data: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    place = requests.post(f"{url}/blobs/uploads/", timeout=30).headers["Location"]
    _put(f"{place}&digest={digest}", data, "application/octet-stream")
    return {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": len(data)}


WORDS: list[tuple[str, type[WorkbenchError], str]] = [
    (
        "ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        MachineLacks,
        "No container engine answers",
    ),
    (
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
        MachineLacks,
        "This user may not use",
    ),
    ("write /var/lib/docker/tmp/x: no space left on device", MachineLacks, "disk is full"),
    ("manifest for debian:nope not found: manifest unknown: manifest unknown", MachineLacks, "no such image"),
    ("no matching manifest for linux/arm64/v8 in the manifest list entries", MachineLacks, "platform"),
    ("exec /usr/bin/python3.11: exec format error", MachineLacks, "platform"),
    (
        "toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating",
        StepFailed,
        "gives no more images for now",
    ),
    (
        "pull access denied for x, repository does not exist: denied: requested access to the resource is denied",
        MachineLacks,
        "wants an account",
    ),
    ("unauthorized: authentication required", MachineLacks, "wants an account"),
    ("no basic auth credentials", MachineLacks, "wants an account"),
    ('could not select device driver "nvidia" with capabilities: [[gpu]]', MachineLacks, "GPU"),
    ("nvidia-container-cli: initialization error: nvml error: driver not loaded", MachineLacks, "GPU"),
    ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all", MachineLacks, "GPU"),
    ("Bind for 127.0.0.1:8000 failed: port is already allocated", StepFailed, "port is taken"),
    ("x509: certificate signed by unknown authority", MachineLacks, "does not trust"),
    ("http: server gave HTTP response to HTTPS client", MachineLacks, "does not trust"),
    ("dial tcp: lookup registry.example.com: no such host", MachineLacks, "does not reach the registry"),
    (
        "ERROR: BuildKit is enabled but the buildx component is missing or broken.",
        MachineLacks,
        "cannot build with BuildKit",
    ),
    ("the --mount option requires BuildKit.", MachineLacks, "cannot build with BuildKit"),
    (
        "Error response from daemon: client version 1.99 is too new. Maximum supported API version is 1.41",
        MachineLacks,
        "version does not fit",
    ),
    ('process "/bin/sh -c x" did not complete successfully: exit code: 137', StepFailed, "memory runs out"),
    ("rpc error: code = Unavailable desc = error reading from server: EOF", StepFailed, "went away while testing"),
    (
        "cannot write id because server did not provide an image ID",
        StepFailed,
        "went away while testing",
    ),
]


@pytest.mark.parametrize(("words", "kind", "message"), WORDS, ids=[words[:40] for words, _, _ in WORDS])
def test_words_of_engines_are_told(words: str, kind: type[WorkbenchError], message: str) -> None:
    error = told(f"#1 some step\n{words}\nfailed\n", "testing")
    assert type(error) is kind
    assert message in error.message
    assert words[:60] in error.message
    assert "some step" not in error.message
    assert error.cure


def test_what_nobody_knows_is_passed_on_as_it_was_said() -> None:
    error = told("step 1\nthe moon is full\n", "building the image")
    assert type(error) is StepFailed
    assert error.message == "The container engine failed while building the image: the moon is full."


def test_an_end_in_the_middle_of_a_request_is_told() -> None:
    error = requests.ConnectionError(ConnectionResetError(104, "Connection reset by peer"))
    assert "went away while testing" in told(error, "testing").message
    assert "does not answer" in told(requests.ReadTimeout("Read timed out. (read timeout=60)"), "testing").message


def test_a_file_that_is_missing_is_no_missing_engine(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="layer") as caught:
        (tmp_path / "layer").open()
    error = told(caught.value, "loading the image")
    assert type(error) is StepFailed
    assert "failed while loading the image" in error.message


def test_errors_that_are_typed_stay_as_they_are() -> None:
    error = UsageError("no")
    assert told(error, "testing") is error


def test_passwords_and_floods_are_not_told() -> None:
    error = told("Get https://user:secret@registry.example.com/v2/: " + "x" * 10_000, "testing")
    assert "secret" not in error.message
    assert len(error.message) < 600


def test_want_of_memory_is_told_with_the_limit_and_how_sure_it_is() -> None:
    assert "its limit of 512.0 MiB" in out_of_memory(512 << 20).message
    assert "most likely" in out_of_memory(512 << 20, surely=False).message
    assert "this machine's memory" in out_of_memory(None).message
