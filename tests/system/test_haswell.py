"""On an older CPU, which qemu emulates: int8 is as good there, and a replay says when the instruction set made another
model.

Everything is emulated, the processes that time the models aside: the time of an emulator is no figure, and the thirty
of them would take minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import git

from workbench import runs
from workbench.events import RunState
from workbench.host.fingerprint import isa_class
from workbench.lock import Lock
from workbench.lock import load as load_lock

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

FLIPPED = (60, 275)
"""Samples that int8 takes for another digit where its products saturate: with weights of 8 bits and without VNNI."""

EMULATED = {"Haswell": "x86-64-v3", "Nehalem": "x86-64-v2"}

WRAPPER = """\
#!/bin/sh
echo "$*" >> {log}
case " $* " in *" workbench.bench.timing "*) exec {native} "$@";; esac
exec qemu-x86_64 -cpu {cpu} -0 "$0" {real} "$@"
"""

MIXTURE = """\
workbench: 1
name: mixture
model: {source: assets/mixture.onnx}
data: {evaluate: assets/samples.npz, metric: fidelity}
variants:
  int8: [{quantize: {to: int8, mode: weight-only}}]
"""


@dataclass(frozen=True)
class Machine:
    """The old CPU: ``python`` is its interpreter, with what is installed here."""

    python: Path
    isa: str
    log: Path

    def started(self) -> list[str]:
        """The modules that were started as processes."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [words[words.index("-m") + 1] for words in lines if "-m" in words]


@pytest.fixture
def old_machine(tmp_path: Path) -> Machine:
    """An environment whose interpreter is a script, so that what it starts with ``sys.executable`` is emulated too."""
    if shutil.which("qemu-x86_64") is None:
        pytest.skip("qemu-user is not installed")
    # One that has less than this machine.
    cpu = "Haswell" if isa_class().startswith("x86-64-v4") else "Nehalem"
    real, folder = Path(sys.executable).resolve(), tmp_path / "old"
    machine = Machine(folder / "bin" / "python", EMULATED[cpu], folder / "started.txt")
    machine.python.parent.mkdir(parents=True)
    machine.python.write_text(WRAPPER.format(log=machine.log, native=sys.executable, cpu=cpu, real=real))
    machine.python.chmod(0o755)
    (folder / "pyvenv.cfg").write_text(f"home = {real.parent}\ninclude-system-site-packages = false\n")
    library = Path(sysconfig.get_path("stdlib")).name
    (folder / "lib").mkdir()
    (folder / "lib" / library).symlink_to(Path(sys.prefix) / "lib" / library)
    return machine


def workbench(python: Path | str, project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "workbench", *words],
        cwd=project,
        env={**os.environ, "HOME": str(project.parent)},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def locked(project: Path, recipe: str) -> Lock:
    """The lock of a run on this machine."""
    done = workbench(sys.executable, project, "run", f"recipes/{recipe}.yaml")
    assert done.returncode == 0, done.stderr
    lock = load_lock(project / "recipes" / f"{recipe}.lock.yaml")
    assert lock is not None
    return lock


def replayed(machine: Machine, project: Path, recipe: str) -> tuple[int, str, RunState]:
    """A replay on the old machine: exit code, what it said, state."""
    done = workbench(machine.python, project, "replay", f"recipes/{recipe}.yaml")
    state = runs.state_of(runs.all_runs(project)[0])
    assert state.mode == "replay"
    assert {step.status for step in state.steps.values()} == {"done"}, done.stderr
    assert state.machine["facts"]["isa"] == machine.isa
    decisions = {"choose"}
    assert machine.started().count("workbench.worker") == len(set(state.steps) - decisions)
    return done.returncode, done.stdout + done.stderr, state


def test_the_old_machine_is_one(old_machine: Machine) -> None:
    ask = "import sys; from workbench.host.fingerprint import isa_class; print(sys.executable, isa_class())"
    done = subprocess.run([str(old_machine.python), "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(old_machine.python), old_machine.isa]
    assert isa_class() != old_machine.isa


def test_the_default_int8_keeps_its_accuracy_there_and_is_made_with_the_same_bytes(
    project: Path, old_machine: Machine
) -> None:
    fewer(project)
    lock = locked(project, "digits")
    figures = next(iter(lock.figures.values())).values
    code, said, state = replayed(old_machine, project, "digits")
    for name in ("original", "int8"):
        there = state.steps[f"evaluate/{name}"].values["metric"]["value"]
        assert there == figures[f"{name}.accuracy"].value
    assert state.steps["evaluate/int8"].values["compare"]["flipped"] == 0
    assert code == 0, said
    assert state.verdict is not None
    assert state.verdict.differences == []
    assert "int8/quantize" in state.verdict.same
    assert state.verdict.reused == 0
    assert "Figures are not compared" in "".join(state.verdict.remarks), "another CPU, another class of machines"


def test_a_replay_names_the_instruction_set_where_it_made_other_bytes(project: Path, old_machine: Machine) -> None:
    mixture(project / "assets")
    (project / "recipes" / "mixture.yaml").write_text(MIXTURE)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "a mixture")
    lock = locked(project, "mixture")
    code, said, state = replayed(old_machine, project, "mixture")
    assert code == 4, said
    assert state.verdict is not None
    assert [difference["name"] for difference in state.verdict.differences] == ["int8/quantize"]
    assert state.verdict.cause == f"instruction set: {lock.artifacts.instruction_set} → {old_machine.isa}"
    assert state.error is not None
    assert state.verdict.cause in state.error["message"]
    assert state.verdict.cause in said


def fewer(project: Path) -> None:
    """Leaves of the samples those that matter and some others: an emulator takes half a second for each in float32."""
    digits = project / "assets" / "digits"
    with np.load(digits / "test.npz") as tests, np.load(digits / "calibrate.npz") as samples:
        chosen = [*range(50), *FLIPPED]
        np.savez(digits / "test.npz", **{name: tests[name][chosen] for name in tests.files})
        np.savez(digits / "calibrate.npz", **{name: samples[name][:32] for name in samples.files})
    git(project, "commit", "--quiet", "--all", "--message", "fewer samples")


def mixture(folder: Path) -> None:
    """A model that mixes its inputs by the softmax of learned logits, and samples for it.

    The softmax has only constants, so it is worked out when the model is prepared for quantization, and onnxruntime
    sums it in as many lanes as a register of the CPU has: the weights differ in their last bits.
    """
    random = np.random.default_rng(0)
    logits = (random.standard_normal((64, 64)) / 8).astype(np.float32)
    nodes = [helper.make_node("Softmax", ["logits"], ["weights"], axis=1)]
    nodes.append(helper.make_node("MatMul", ["x", "weights"], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "mixture", values[:1], values[1:], [numpy_helper.from_array(logits, "logits")])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "mixture.onnx"
    )
    np.savez(folder / "samples.npz", x=random.standard_normal((40, 64)).astype(np.float32))
