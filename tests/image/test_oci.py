"""Config and manifest: the OCI image specification, and one digest for one content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from image_helpers import CREATED, LAYERS, Emit

import workbench
from workbench.errors import UsageError
from workbench.image import oci
from workbench.image.content import server_files

PARAMS = {"name": "digits", "created": CREATED, "python": "3.11", "device": "cpu", "port": 8000}


def assembled(folder: Path, layers: dict[str, dict[str, Any]] | None = None, **changed: Any) -> Any:
    folder.mkdir()
    inputs = {"model_file": folder / "model.onnx"}
    inputs["model_file"].write_bytes(b"weights")
    for name in LAYERS:
        descriptor = {
            "name": name,
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "diff_id": f"sha256:{hashlib.sha256(name.encode()).hexdigest()}",
            "digest": f"sha256:{hashlib.sha256(name.encode() + b'gz').hexdigest()}",
            "size": 10,
            "uncompressed": 20,
            **({"architecture": "amd64", "debian": "bookworm"} if name == "base" else {}),
            **({"python": "3.11"} if name == "wheels" else {}),
            **(layers or {}).get(name, {}),
        }
        inputs[name] = folder / name
        inputs[name].write_text(json.dumps(descriptor))
    outputs = oci.assemble(inputs, {**PARAMS, **changed}, Emit(folder))
    config = json.loads(outputs.files["config"].read_bytes())
    return outputs, config, json.loads(outputs.files["manifest"].read_bytes())


def test_the_manifest_names_config_and_layers_by_content(tmp_path: Path) -> None:
    outputs, config, manifest = assembled(tmp_path / "a")
    data = outputs.files["config"].read_bytes()
    assert manifest["config"]["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}" == outputs.values["config"]
    assert manifest["config"]["size"] == len(data)
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == len(config["history"]) == 5
    assert outputs.values["uncompressed"] == 100


def test_another_compressor_is_another_manifest_over_the_same_config(tmp_path: Path) -> None:
    one, _, _ = assembled(tmp_path / "one")
    packed = {"base": {"digest": f"sha256:{'1' * 64}", "size": 11, "compressor": "another"}}
    two, _, _ = assembled(tmp_path / "two", packed)
    assert one.values["config"] == two.values["config"]
    assert one.values["manifest"] != two.values["manifest"]


def test_a_new_model_is_one_new_layer_on_top(tmp_path: Path) -> None:
    _, _, one = assembled(tmp_path / "one")
    _, _, two = assembled(tmp_path / "two", {"model": {"digest": f"sha256:{'2' * 64}"}})
    assert [a == b for a, b in zip(one["layers"], two["layers"], strict=True)] == [True, True, True, True, False]


def test_it_runs_as_a_user_without_rights_and_finds_its_parts(tmp_path: Path) -> None:
    _, config, _ = assembled(tmp_path / "a")
    env = dict(pair.split("=", 1) for pair in config["config"]["Env"])
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["/usr/bin/python3.11", "-m", "workbench.server"]
    assert config["config"]["ExposedPorts"] == {"8000/tcp": {}}
    assert env["PYTHONPATH"] == "/opt/wheels:/app"
    assert "WORKBENCH_THREADS" not in env  # the CPUs that the container has decide
    assert env["ORT_DISABLE_TELEMETRY"] == "1"


def test_labels_say_what_is_inside_and_nothing_of_where_it_was_made(tmp_path: Path) -> None:
    _, config, _ = assembled(tmp_path / "a")
    assert config["config"]["Labels"] == {
        "org.opencontainers.image.title": "digits",
        "com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true",
        "workbench.version": workbench.__version__,
        "workbench.model": f"sha256:{hashlib.sha256(b'weights').hexdigest()}",
    }
    assert config["created"] == "2023-11-14T22:13:20Z"


def test_the_health_check_is_told_in_both_ways(tmp_path: Path) -> None:
    _, config, manifest = assembled(tmp_path / "a")
    test = config["config"]["Healthcheck"]["Test"]
    assert test[0] == "CMD"
    assert json.loads(manifest["annotations"][oci.HEALTHCHECK_ANNOTATION]) == test[1:]
    assert test[-1].lstrip("/") in server_files()


def test_a_second_port_speaks_grpc_where_the_recipe_says_so(tmp_path: Path) -> None:
    _, config, _ = assembled(tmp_path / "a", grpc=8001)
    assert list(config["config"]["ExposedPorts"]) == ["8000/tcp", "8001/tcp"]
    assert "WORKBENCH_GRPC_PORT=8001" in config["config"]["Env"]
    _, without, _ = assembled(tmp_path / "b")
    assert list(without["config"]["ExposedPorts"]) == ["8000/tcp"]
    assert "GRPC" not in "".join(without["config"]["Env"])


def test_a_gpu_is_asked_for_by_environment(tmp_path: Path) -> None:
    _, config, _ = assembled(tmp_path / "a", device="cuda")
    assert "NVIDIA_VISIBLE_DEVICES=all" in config["config"]["Env"]


def test_another_python_than_the_bases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has Python 3\.11"):
        assembled(tmp_path / "a", python="3.12")
