"""What the GPUs do, for ``/metrics``: where there is one and nvidia-ml-py is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""What the driver's library talks to, on Linux and on its Windows cousin."""


class GpuCollector:
    """Utilisation and memory of each GPU that NVML shows to this process."""

    def __init__(self, nvml: Any) -> None:
        """``nvml``: the module pynvml, initialised."""
        self._nvml = nvml
        self._gpus = []
        for number in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            self._gpus.append((handle, [str(nvml.nvmlDeviceGetUUID(handle))]))

    def describe(self) -> Sequence[Metric]:
        """Nothing: a scrape tells what there is."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of metrics. What a GPU does not tell (one of several kinds) is left out."""
        labels = ("gpu_uuid",)
        busy = GaugeMetricFamily("gpu_utilization", "Part of the time that the GPU computed, 0 to 1.", labels=labels)
        used = GaugeMetricFamily("gpu_memory_used_bytes", "Memory of the GPU in use, by anybody.", labels=labels)
        total = GaugeMetricFamily("gpu_memory_total_bytes", "Memory of the GPU.", labels=labels)
        for handle, of in self._gpus:
            try:
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                used.add_metric(of, memory.used)
                total.add_metric(of, memory.total)
                busy.add_metric(of, self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except self._nvml.NVMLError:
                continue
        yield from (busy, used, total)


def gpu_collector(devices: Sequence[Path] = DEVICES) -> GpuCollector | None:
    """A collector where one of ``devices``, the module and a GPU are there; looked for in the order of their cost."""
    if not any(device.exists() for device in devices):
        return None
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return GpuCollector(pynvml)
    except pynvml.NVMLError:
        return None
