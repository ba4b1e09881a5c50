"""GPUs are told of in the metrics where there is one. The machines that test have none: NVML is a stand-in here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import generate_latest

from workbench.server.gpu import gpu_collector


class StandIn:
    """What is used of pynvml, over two GPUs that are made up; the second tells no utilisation, as slices of one do."""

    class NVMLError(Exception):
        """As pynvml's."""

    def __init__(self, gpus: int = 2) -> None:
        self._gpus = gpus
        self.initialised = False

    def nvmlInit(self) -> None:
        if not self._gpus:
            raise self.NVMLError("Driver Not Loaded")
        self.initialised = True

    def nvmlDeviceGetCount(self) -> int:
        return self._gpus

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=(handle + 1) * 2**30, total=8 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(gpu=40, memory=10)


def test_each_gpu_tells_what_it_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", StandIn())
    collector = gpu_collector([tmp_path / "none", tmp_path])
    assert collector is not None
    registry = CollectorRegistry()
    registry.register(collector)
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert lines == [
        'gpu_utilization{gpu_uuid="GPU-0"} 0.4',
        'gpu_memory_used_bytes{gpu_uuid="GPU-0"} 1.073741824e+09',
        'gpu_memory_used_bytes{gpu_uuid="GPU-1"} 2.147483648e+09',
        'gpu_memory_total_bytes{gpu_uuid="GPU-0"} 8.589934592e+09',
        'gpu_memory_total_bytes{gpu_uuid="GPU-1"} 8.589934592e+09',
    ]


def test_without_a_driver_the_module_or_a_gpu_there_is_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = StandIn()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    assert gpu_collector([tmp_path / "none"]) is None
    assert not found.initialised
    monkeypatch.setitem(sys.modules, "pynvml", StandIn(0))
    assert gpu_collector([tmp_path]) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it fails
    assert gpu_collector([tmp_path]) is None


def test_without_a_device_nothing_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from workbench.server.gpu import gpu_collector; "
        "gpu_collector([pathlib.Path(sys.argv[1])]); sys.exit('pynvml' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "none")], check=True)
