"""Readings of what a machine does now."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from workbench.host import nvidia
from workbench.host.na import NA, as_json, known
from workbench.host.sensors import Sampler, Sensors, Tree


def test_a_missing_sensor_is_shown_as_na_and_computes_as_nan() -> None:
    assert f"{NA}" == "N/A"
    assert f"{NA:8.1f}|" == "     N/A|"
    assert f"{NA:<6}|" == "N/A   |"
    assert f"{NA:.0%}" == "N/A"
    assert str(NA) == "N/A"
    assert math.isnan(NA + 1)
    assert math.isnan(max(NA * 2, NA))
    assert not NA
    assert known(None) is NA
    assert known(0) == 0
    assert pickle.loads(pickle.dumps(NA)) is NA


def test_na_is_null_in_json() -> None:
    assert as_json({"a": NA, "b": [NA, 1.5], "c": {"d": (NA,)}}) == {"a": None, "b": [None, 1.5], "c": {"d": [None]}}


def test_rates_are_known_from_the_second_reading_on() -> None:
    sensors = Sensors()
    assert sensors.read().cpu is NA
    read = threading.Event()
    while not read.is_set():
        snapshot = sensors.read()
        if snapshot.cpu is not NA:  # two readings within one tick of the kernel's clock have nothing between them
            read.set()
    assert 0 <= snapshot.cpu <= 100
    assert len(snapshot.cpu_each) == os.cpu_count()
    assert 0 < snapshot.memory_used < snapshot.memory_total
    assert snapshot.tree is NA


def test_a_reading_is_plain_json() -> None:
    record = Sensors(os.getpid()).read().as_record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["cpu"] is None


def test_a_tree_counts_descendants_and_forgets_the_ended() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the grandchild runs
        sensors = Sensors(process.pid)
        tree = sensors.read().tree
        assert isinstance(tree, Tree)
        assert tree.processes == 2
        assert tree.memory > 2**20
        process.communicate(b"\n")
    assert sensors.read().tree is NA


def test_the_sampler_reads_until_it_is_left_and_ends_at_once() -> None:
    taken: list[dict[str, Any]] = []
    three = threading.Event()

    def take(record: dict[str, Any]) -> None:
        taken.append(record)
        if len(taken) == 3:
            three.set()

    with Sampler(take, hertz=100):
        assert three.wait(30)
    count = len(taken)
    assert count >= 3
    # With an interval of a quarter of an hour this only ends because leaving wakes the thread.
    one = threading.Event()
    with Sampler(lambda record: one.set(), hertz=0.001):
        assert one.wait(30)
    assert not [thread for thread in threading.enumerate() if thread.name == "sensors"]


def test_what_the_callback_raises_is_raised_on_leaving() -> None:
    called = threading.Event()

    def fail(record: dict[str, Any]) -> None:
        called.set()
        raise OSError("the pipe is closed")

    with pytest.raises(OSError, match="the pipe"), Sampler(fail):
        assert called.wait(30)


class NVMLError(Exception):
    pass


@pytest.fixture
def fresh_nvml() -> Iterator[None]:
    nvidia._library.cache_clear()
    yield
    nvidia._library.cache_clear()


def binding(**changed: Any) -> Any:
    """The NVML binding of a machine with one GPU."""

    def refuse(*_: Any) -> Any:
        raise NVMLError

    functions = {
        "NVMLError": NVMLError,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: b"GPU X",
        "nvmlDeviceGetMemoryInfo": lambda handle: types.SimpleNamespace(used=1, total=2),
        "nvmlDeviceGetUtilizationRates": lambda handle: types.SimpleNamespace(gpu=40),
        "nvmlDeviceGetPowerUsage": refuse,
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 300_000,
        "NVML_CLOCK_SM": 1,
        "nvmlDeviceGetClockInfo": lambda handle, which: 1410,
        "nvmlDeviceGetTemperature": lambda handle, which: 50,
    }
    return types.SimpleNamespace(**functions | changed, refuse=refuse)


@pytest.mark.usefixtures("fresh_nvml")
def test_a_gpu_tells_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", binding())
    assert nvidia.gpu_names() == ["GPU X"]
    assert nvidia.gpu_readings() == [nvidia.GpuReading("GPU X", 40.0, 1, 2, None, 300.0, 50, 1410)]


def test_the_binding_has_all_that_is_asked_of_it() -> None:
    """The stand-in above stands for the real one, which is installed; what there is none of here is a driver."""
    real = pytest.importorskip("pynvml")
    assert [name for name in vars(binding()) if name != "refuse" and not hasattr(real, name)] == []


@pytest.mark.usefixtures("fresh_nvml")
def test_no_driver_and_no_binding_are_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", binding(nvmlInit=binding().refuse))
    assert nvidia.gpu_readings() == []
    nvidia._library.cache_clear()
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it fails
    assert nvidia.gpu_names() == []
