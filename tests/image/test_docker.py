"""Images built by a real engine's BuildKit: the tree of the OCI builder's, from a build without a network."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sysconfig
import tarfile
import threading
from pathlib import Path
from typing import Any

import docker
import pytest
import services
from docker_helpers import PARAMS, built, client_of, inputs_of, layers_of, tree_of
from image_helpers import CREATED, Emit, Image

from workbench.engine import leftovers
from workbench.errors import MachineLacks, StepFailed, UsageError, WorkbenchError
from workbench.image import buildkit, downloads, oci, packed, saved
from workbench.image import docker as builder
from workbench.image.layers import TAR_GZIP
from workbench.image.tree import differences, tree_digest, tree_entries
from workbench.steps import Outputs

pytestmark = pytest.mark.integration

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _engine(engine: services.Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The engine of this test run, and no configuration of Docker's but an empty one."""
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))


@pytest.fixture
def by_docker(image: Image, tmp_path: Path) -> Outputs:
    return built(inputs_of(image), tmp_path / "scratch")[0]


def test_both_builders_make_the_same_file_tree(image: Image, by_docker: Outputs) -> None:
    by_oci = tree_entries(image.blobs)
    assert differences(by_oci, tree_of(by_docker)) == []
    assert by_docker.values["tree"] == tree_digest(by_oci)
    assert json.loads(by_docker.files["tree"].read_bytes())["digest"] == tree_digest(by_oci)
    assert len(by_oci) > 1000


def test_a_container_of_either_runs_the_same_way(image: Image, by_docker: Outputs) -> None:
    model = f"sha256:{downloads.sha256_of(inputs_of(image)['model'])}"
    config = json.loads(by_docker.files["config"].read_bytes())
    assert config["config"] == oci.runtime_config(PARAMS, model)
    one = json.loads(image.files["config"].read_bytes())
    assert {key: config[key] for key in ("architecture", "os", "created", "history")} == {
        key: one[key] for key in ("architecture", "os", "created", "history")
    }


def test_config_and_manifest_name_the_layers_lowest_first(image: Image, by_docker: Outputs) -> None:
    values = by_docker.values
    manifest = json.loads(by_docker.files["manifest"].read_bytes())
    assert [layer["name"] for layer in values["layers"]] == ["base", "wheels", "server", "bytecode", "model"]
    assert manifest["mediaType"] == oci.MANIFEST
    assert (
        manifest["config"]["digest"] == f"sha256:{downloads.sha256_of(by_docker.files['config'])}" == values["config"]
    )
    assert [layer["mediaType"] for layer in manifest["layers"]] == [TAR_GZIP] * 5
    found = [f"sha256:{downloads.sha256_of(path)}" for path in layers_of(by_docker)]
    assert [layer["digest"] for layer in manifest["layers"]] == found == [one["digest"] for one in values["layers"]]
    assert layers_of(by_docker)[0].read_bytes() == image.files["base_blob"].read_bytes()
    assert values["size"] == sum(path.stat().st_size for path in [*layers_of(by_docker), by_docker.files["config"]])
    assert (values["builder"], values["engine"][:1].isdigit()) == ("docker", True)


def test_nothing_of_this_machine_is_in_config_or_manifest(by_docker: Outputs, tmp_path: Path) -> None:
    for name in ("config", "manifest"):
        text = by_docker.files[name].read_text()
        for word in (str(tmp_path), str(Path.home()), os.uname().nodename, "buildkit"):
            assert word not in text


def test_a_build_from_nothing_makes_the_same_tree_again(
    image: Image, by_docker: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = buildkit.find_cli()
    anew = dataclasses.replace(cli, words=(*cli.words, "--no-cache"))
    monkeypatch.setattr(buildkit, "find_cli", lambda: anew)
    again, emit = built(inputs_of(image), tmp_path / "again")
    assert not [text for text in emit.said if "RUN" in text and "cached" in text]
    assert again.values["tree"] == by_docker.values["tree"]


def test_server_and_model_are_the_layers_that_lie_here_whenever_they_are_built(
    image: Image, by_docker: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later build, in another folder and without a cache, makes the same bytes: the lock of a colleague holds."""
    cli = buildkit.find_cli()
    anew = dataclasses.replace(cli, words=(*cli.words, "--no-cache"))
    monkeypatch.setattr(buildkit, "find_cli", lambda: anew)
    monkeypatch.setattr(builder, "_folders", lambda *_: pytest.fail("a layer was fetched back from the engine"))
    again, _ = built(inputs_of(image), tmp_path / "again")
    assert again.values["config"] == by_docker.values["config"]
    assert again.values["manifest"] == by_docker.values["manifest"]


def test_a_new_model_is_one_new_layer_and_nothing_leaves_the_engine(
    image: Image, by_docker: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    data = bytearray(inputs_of(image)["model"].read_bytes())
    data[-1] ^= 1  # the same size: BuildKit looks at size and time
    model.write_bytes(data)
    monkeypatch.setattr(saved, "read", lambda *_: pytest.fail("the image was saved as a whole"))
    monkeypatch.setattr(builder, "_folders", lambda *_: pytest.fail("a layer was fetched back from the engine"))
    changed, emit = built(inputs_of(image, model), tmp_path / "changed")
    assert [text for text in emit.said if "runtime" in text and text.endswith("(cached)")] == [
        "runtime 1/3: COPY --from=bytecode /out/ / (cached)"
    ]
    one, two = (outputs.values["layers"] for outputs in (by_docker, changed))
    assert [a["digest"] == b["digest"] for a, b in zip(one, two, strict=True)] == [True, True, True, True, False]
    [difference] = differences(tree_of(by_docker), tree_of(changed))
    assert difference.startswith("/models/digits/1/model.onnx: content")


def test_an_engine_whose_folders_are_no_layers_is_asked_for_the_whole_image(
    image: Image, by_docker: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "take", lambda diff_id: None)
    monkeypatch.setattr(builder, "_packed_tars", lambda *_: {})
    monkeypatch.setattr(builder, "_folders", lambda *_: iter(()))
    again, _ = built(inputs_of(image), tmp_path / "again")
    assert again.values["config"] == by_docker.values["config"]
    assert again.values["manifest"] == by_docker.values["manifest"]


def test_an_engine_that_writes_layers_in_another_form_is_asked_for_the_folders(
    image: Image, by_docker: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "take", lambda diff_id: None)
    monkeypatch.setattr(builder, "_packed_tars", lambda *_: {})
    monkeypatch.setattr(saved, "read", lambda *_: pytest.fail("the image was saved as a whole"))
    again, _ = built(inputs_of(image), tmp_path / "again")
    assert again.values["manifest"] == by_docker.values["manifest"]


def test_the_engine_has_the_image_under_its_own_digest_and_nothing_else_of_ours(
    image: Image, tmp_path: Path, engine: services.Service
) -> None:
    outputs, _ = built(inputs_of(image), tmp_path / "scratch", name="alone")
    with client_of(engine.address) as client:
        config = json.loads(outputs.files["config"].read_bytes())
        [found] = titled(client, "alone")
        assert found.id == outputs.values["config"]
        assert found.attrs["RootFS"]["Layers"] == config["rootfs"]["diff_ids"]
        assert found.tags == [outputs.values["in_engine"]]
        assert outputs.values["in_engine"].startswith("workbench.local/alone:")
        assert client.containers.list(all=True, filters={"ancestor": found.id}) == []
        client.images.remove(found.id)


def titled(client: docker.DockerClient, name: str) -> list[Any]:
    """All images of that title, named or not: other tests build at the same time."""
    return client.images.list(all=True, filters={"label": f"org.opencontainers.image.title={name}"})


def test_progress_is_told_by_stage_and_the_log_has_every_line(
    image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, emit = built(inputs_of(image), tmp_path / "scratch")
    said = [text for text in emit.said if not text.startswith("waiting for another build")]  # another worker's
    assert said[0].startswith("importing the base as workbench.local/base:")
    assert {"wheels 3/3", "bytecode 1/1", "runtime 2/3"} <= {text.partition(":")[0] for text in said}
    assert re.search(r"^#\d+ \[runtime 2/3\] ADD model\.tar /$", capsys.readouterr().err, re.MULTILINE)


def test_proxies_of_the_user_reach_neither_image_nor_log(
    image: Image,
    by_docker: Outputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands: list[Any] = []
    popen = subprocess.Popen
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@proxy.example.com:3128")
    monkeypatch.setattr(subprocess, "Popen", lambda words, **more: commands.append(words) or popen(words, **more))
    outputs, emit = built(inputs_of(image), tmp_path / "proxied")
    assert any("HTTPS_PROXY" in words for words in commands)
    assert outputs.values["config"] == by_docker.values["config"]
    said = capsys.readouterr()
    for text in (outputs.files["config"].read_text(), said.err, said.out, str(commands), str(emit.said)):
        assert SECRET not in text
        assert "proxy.example.com" not in text


@contextlib.contextmanager
def listener() -> Any:
    """A port that is open on every address of this machine; how many came."""
    came: list[int] = []
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(0.1)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    server.accept()[0].close()
                    came.append(1)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1], came
        finally:
            stop.set()
            thread.join()


def test_a_build_stage_that_tries_the_network_finds_none(
    image: Image, by_docker: Outputs, engine: services.Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same instruction reaches this machine where the build is given a network: the test can tell."""
    with client_of(engine.address) as client, listener() as (port, came):
        gateway = client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
        script = f"import socket; socket.create_connection(('{gateway}', {port}), 5)"
        tries = f'RUN ["/usr/bin/python3.11", "-c", "{script}"]\n'
        render = builder.render
        monkeypatch.setattr(
            builder,
            "render",
            lambda parameters: render(parameters).replace("WORKDIR /build\n", f"WORKDIR /build\n{tries}"),
        )
        with pytest.raises(StepFailed, match=r"unreachable"):
            built(inputs_of(image), tmp_path / "without")
        assert came == []

        folder = tmp_path / "with"
        folder.mkdir()
        base = builder.assembled(json.loads((image.folder / "base" / "descriptor").read_bytes()))
        (folder / "Dockerfile").write_text(f"FROM {base.reference}\n{tries}")
        environment = buildkit.environment_for(engine.address, os.environ)
        ended = buildkit.run_build(buildkit.find_cli(), [str(folder)], environment, lambda *_: None)
        assert (ended.code, came) == (0, [1])


def test_a_failed_build_names_the_step_and_leaves_nothing(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: services.Service
) -> None:
    with client_of(engine.address) as client:
        unpacking = builder.lay_out

        def broken(folder: Path, *more: Any) -> Any:
            laid_out = unpacking(folder, *more)
            [path] = (folder / "wheels").glob("msgspec-*.whl")
            path.write_bytes(b"another")
            return laid_out

        monkeypatch.setattr(builder, "lay_out", broken)
        with pytest.raises(StepFailed, match=r"wheels 3/3.*msgspec-.* is locked"):
            built(inputs_of(image), tmp_path / "scratch", name="failing")
        assert not (downloads.cache_folder() / "contexts" / "failing" / "context").exists()
        assert titled(client, "failing") == []


def test_what_a_wrong_build_cache_gives_is_refused(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laying_out = builder.lay_out

    def other(folder: Path, *more: Any) -> Any:
        laid_out = laying_out(folder, *more)
        return dataclasses.replace(laid_out, files={**laid_out.files, "models/digits/1/signature.json": "0" * 64})

    monkeypatch.setattr(builder, "lay_out", other)
    with pytest.raises(StepFailed, match=r"another /models/digits/1/signature\.json than the one that went in"):
        built(inputs_of(image), tmp_path / "scratch")


def test_without_an_engine_the_cure_is_said(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(MachineLacks) as caught:
        built(inputs_of(image), tmp_path / "scratch")
    assert "DOCKER_HOST" in caught.value.cure


def test_a_cache_that_cannot_be_written_is_named(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = builder._context_folder("digits", Emit(tmp_path))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineLacks, match="file cannot be written"), folder:
        pass


def test_another_python_than_the_bases_is_refused(image: Image, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has Python 3\.11, and the recipe asks for 3\.12"):
        built(inputs_of(image), tmp_path / "scratch", python="3.12")


def test_a_name_that_leads_elsewhere_touches_nothing(image: Image, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="cannot name a model"):
        built(inputs_of(image), tmp_path / "scratch", name="../downloads")
    assert (downloads.cache_folder() / "downloads").exists()


def test_an_image_of_the_users_own_is_left_alone(image: Image, tmp_path: Path, engine: services.Service) -> None:
    """A build that comes from the cache as a whole gives the image that the user has named already."""
    with client_of(engine.address) as client:
        forget = builder._forget

        def named(client: docker.DockerClient, image_id: str) -> None:
            client.images.get(image_id).tag("mine", "1")
            forget(client, image_id)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builder, "_forget", named)
            built(inputs_of(image), tmp_path / "one", name="named")
        own = client.images.get("mine:1").id
        built(inputs_of(image), tmp_path / "two", name="named")
        assert client.images.get("mine:1").id == own
        client.images.remove("mine:1")


STRUCTURE = {
    "schemaVersion": "2.0.0",
    "metadataTest": {
        "user": "65532:65532",
        "workdir": "/",
        "exposedPorts": ["8000"],
        "entrypoint": ["/usr/bin/python3.11", "-m", "workbench.server"],
        "cmd": [],
        "envVars": [{"key": "PYTHONPATH", "value": "/opt/wheels:/app"}, {"key": "ORT_DISABLE_TELEMETRY", "value": "1"}],
        "labels": [{"key": "org.opencontainers.image.title", "value": "digits"}],
    },
    "fileExistenceTests": [
        {
            "name": "the model",
            "path": "/models/digits/1/model.onnx",
            "shouldExist": True,
            "permissions": "-rw-r--r--",
            "uid": 0,
            "gid": 0,
        },
        {"name": "the server", "path": "/app/workbench/server/__main__.py", "shouldExist": True},
        {"name": "a folder of ours", "path": "/opt/wheels", "shouldExist": True, "permissions": "drwxr-xr-x"},
        {"name": "no shell", "path": "/bin/sh", "shouldExist": False},
        {"name": "no build stage", "path": "/build", "shouldExist": False},
        {"name": "no output folder", "path": "/out", "shouldExist": False},
    ],
    "fileContentTests": [
        {"name": "the user", "path": "/etc/passwd", "expectedContents": ["workbench:x:65532:65532:.*"]}
    ],
    "commandTests": [
        {
            "name": "the session's library loads as the image's user",
            "command": "/usr/bin/python3.11",
            "args": ["-c", "import onnxruntime, os; print(os.getuid(), onnxruntime.get_available_providers())"],
            "expectedOutput": ["65532 .*CPUExecutionProvider"],
        }
    ],
}


def test_container_structure_test_passes(by_docker: Outputs, tmp_path: Path, engine: services.Service) -> None:
    with client_of(engine.address) as client:
        [tag] = client.images.get(by_docker.values["config"]).tags
    program = Path(sysconfig.get_path("scripts")) / "container-structure-test"
    (tmp_path / "structure.json").write_text(json.dumps(STRUCTURE))
    words = [str(program), "test", "--image", tag, "--config", str(tmp_path / "structure.json"), "--output", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert (found["Pass"], found["Fail"]) == (9, 0)


def test_the_wheels_layer_carries_the_time_of_the_lock(by_docker: Outputs) -> None:
    with tarfile.open(by_docker.files["layer-01"]) as archive:
        assert {member.mtime for member in archive} == {CREATED}


def test_a_gpu_is_asked_of_the_engine_and_its_lack_told_with_the_remedy(image: Image, tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match="GPU") as refused:
        built(inputs_of(image), tmp_path / "scratch", device="cuda", gpus="all")
    assert "nvidia-ctk" in refused.value.cure
    with client_of(os.environ["DOCKER_HOST"]) as client:
        mine = {"label": f"{leftovers.OWNER}={leftovers.owner()}", "status": "created"}
        assert client.containers.list(all=True, filters=mine) == []
