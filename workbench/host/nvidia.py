"""NVIDIA GPUs through NVML. No GPU, no driver and no binding are normal: the lists are empty then."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GpuReading:
    """One GPU now: ``busy`` in percent, memory in bytes, ``power`` and its limit in watts, ``temperature`` in °C,
    ``clock`` of the multiprocessors in MHz. None: not told."""

    name: str
    busy: float | None
    memory_used: int | None
    memory_total: int | None
    power: float | None
    power_limit: float | None
    temperature: float | None
    clock: float | None


@functools.cache
def _library() -> Any:
    """The NVML binding, initialised, or None."""
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def gpu_names() -> list[str]:
    """The names of the GPUs, in the driver's order."""
    nvml = _library()
    return [] if nvml is None else [_name(nvml, handle) for handle in _handles(nvml)]


def gpu_readings() -> list[GpuReading]:
    """What each GPU does now."""
    nvml = _library()
    return [] if nvml is None else [_reading(nvml, handle) for handle in _handles(nvml)]


def _handles(nvml: Any) -> list[Any]:
    try:
        return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []


def _reading(nvml: Any, handle: Any) -> GpuReading:
    def ask(function: Any, *arguments: Any) -> Any:
        """One question: a GPU may know some answers and not others (power on a laptop part)."""
        try:
            return function(handle, *arguments)
        except nvml.NVMLError:
            return None

    memory, rates = ask(nvml.nvmlDeviceGetMemoryInfo), ask(nvml.nvmlDeviceGetUtilizationRates)
    milliwatts, limit = ask(nvml.nvmlDeviceGetPowerUsage), ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
    return GpuReading(
        name=_name(nvml, handle),
        busy=None if rates is None else float(rates.gpu),
        memory_used=None if memory is None else int(memory.used),
        memory_total=None if memory is None else int(memory.total),
        power=None if milliwatts is None else milliwatts / 1000,
        power_limit=None if limit is None else limit / 1000,
        temperature=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        clock=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
    )


def _name(nvml: Any, handle: Any) -> str:
    name = nvml.nvmlDeviceGetName(handle)
    return name.decode() if isinstance(name, bytes) else str(name)
