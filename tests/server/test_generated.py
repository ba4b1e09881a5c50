"""The modules of gRPC messages are what their .proto files make, and the messages are the protocol's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from support import ROOT
from tritonclient.grpc import service_pb2

FOLDER = Path("workbench/server")


@pytest.mark.parametrize("name", ["inference", "health"])
def test_the_modules_are_what_the_proto_files_make(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"{FOLDER}/{name}.proto"]
    subprocess.run(command, cwd=ROOT, check=True)
    made = FOLDER / f"{name}_pb2.py"
    assert (ROOT / made).read_text() == (tmp_path / made).read_text(), "write it anew: make proto"


def fields(message: Any) -> dict[str, Any]:
    """The fields of a message type and of those within it: number, type, whether there are several."""
    found: dict[str, Any] = {each.name: [each.number, each.type, each.is_repeated] for each in message.fields}
    return found | {
        f"{each.name}.{name}": value for each in message.nested_types for name, value in fields(each).items()
    }


DESCRIBE = """
import json, sys
from importlib import import_module
sys.path.insert(0, "tests/server")
from test_generated import fields
print(json.dumps({
    message.full_name: fields(message)
    for name in ("inference", "health")
    for message in import_module(f"workbench.server.{name}_pb2").DESCRIPTOR.message_types_by_name.values()
}))
"""


def test_names_and_numbers_of_fields_are_the_protocols() -> None:
    # In a process of its own: two definitions of a message do not go into one.
    program = DESCRIBE.replace("from test_generated import fields", _source())
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = json.loads(done.stdout)
    known = {**service_pb2.DESCRIPTOR.message_types_by_name, **health_pb2.DESCRIPTOR.message_types_by_name}
    theirs = {message.full_name: fields(message) for message in known.values()}
    assert len(ours) > 20
    for name, found in ours.items():
        assert found.items() <= theirs[name].items(), name


def _source() -> str:
    import inspect

    return f"from typing import Any\n{inspect.getsource(fields)}"
