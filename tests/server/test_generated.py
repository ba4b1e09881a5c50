"""The modules of gRPC messages are what their .proto files make, and the messages are the protocol's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from support import ROOT
from tritonclient.grpc import model_config_pb2, service_pb2

FOLDER = Path("workbench/server")


@pytest.mark.parametrize("name", ["inference", "health"])
def test_the_modules_are_what_the_proto_files_make(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"{FOLDER}/{name}.proto"]
    subprocess.run(command, cwd=ROOT, check=True)
    made = FOLDER / f"{name}_pb2.py"
    assert (ROOT / made).read_text() == (tmp_path / made).read_text(), "write it anew: make proto"


def fields(messages: Any, prefix: str = "") -> dict[str, Any]:
    """Number, type and multiplicity of every field of these message types and those within them."""
    found: dict[str, Any] = {}
    for message in messages:
        name = f"{prefix}{message.name}"
        found |= {f"{name}.{field.name}": (field.number, field.type, field.label) for field in message.field}
        found |= fields(message.nested_type, f"{name}.")
    return found


def enums(found: FileDescriptorProto) -> dict[str, int]:
    """The numbers of all enumerations' values."""
    return {f"{enum.name}.{value.name}": value.number for enum in found.enum_type for value in enum.value}


@pytest.mark.parametrize(
    ("name", "theirs"), [("inference", (service_pb2, model_config_pb2)), ("health", (health_pb2,))]
)
def test_names_and_numbers_are_those_of_the_field(name: str, theirs: tuple[Any, ...]) -> None:
    known, ours = FileDescriptorProto(), FileDescriptorProto()
    for module in theirs:
        known.MergeFromString(module.DESCRIPTOR.serialized_pb)
    # In a process of its own: two definitions of a message do not go into one.
    program = (
        f"import sys; from workbench.server import {name}_pb2 as found; "
        "sys.stdout.buffer.write(found.DESCRIPTOR.serialized_pb)"
    )
    ours.ParseFromString(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert ours.package == known.package
    assert fields(ours.message_type)
    assert fields(ours.message_type).items() <= fields(known.message_type).items()
    assert enums(ours).items() <= enums(known).items()
    assert {(service.name, method.name) for service in ours.service for method in service.method} <= {
        (service.name, method.name) for service in known.service for method in service.method
    }
