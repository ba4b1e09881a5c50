"""``/metrics``: what is counted (workbench.server.meter), in the text form of Prometheus.

Names are those of Triton without its prefix, in seconds as Prometheus asks for
(https://prometheus.io/docs/practices/naming/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from workbench.server.batcher import Batcher
from workbench.server.meter import Histogram

if TYPE_CHECKING:
    from workbench.server.shared import Counted

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
_LABELS = ("model", "version")
_HISTOGRAMS = (
    ("inference_queue_seconds", "From a request's arrival to the run that computed it.", "queue"),
    ("inference_compute_seconds", "A run of the model.", "compute"),
    ("inference_batch_rows", "Rows that one run computed.", "joined"),
)


class ModelCollector:
    """The numbers of the models that ``batchers`` gives, which may be others at each scrape."""

    def __init__(self, batchers: Iterable[Batcher | Counted]) -> None:
        self._batchers = batchers

    def describe(self) -> Sequence[Metric]:
        """Nothing: a scrape tells what there is."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of metrics."""
        batchers = list(self._batchers)
        answered = CounterMetricFamily("inference_request_success", "Requests that were answered.", labels=_LABELS)
        failed = CounterMetricFamily(
            "inference_request_failure", "Requests that were not answered.", labels=(*_LABELS, "reason")
        )
        rows = CounterMetricFamily("inference_rows", "Rows (along the first axis) computed.", labels=_LABELS)
        waiting = GaugeMetricFamily("inference_pending_requests", "Requests that wait or run now.", labels=_LABELS)
        loading = GaugeMetricFamily("model_load_seconds", "Loading and warming up the model.", labels=_LABELS)
        for each in batchers:
            of, meter = (each.model.name, each.model.version), each.meter
            answered.add_metric(of, meter.answered)
            for reason, count in meter.failed.items():
                failed.add_metric((*of, reason), count)
            rows.add_metric(of, meter.rows)
            waiting.add_metric(of, meter.waiting)
            loading.add_metric(of, meter.load_seconds)
        yield from (answered, failed, rows, waiting, loading)
        for name, told, attribute in _HISTOGRAMS:
            family = HistogramMetricFamily(name, told, labels=_LABELS)
            for each in batchers:
                histogram: Histogram = getattr(each.meter, attribute)
                family.add_metric((each.model.name, each.model.version), *_cumulative(histogram))
            yield family


class ProcessesCollector:
    """The numbers of several processes, summed up; the start is that of the first."""

    def __init__(self, processes: Sequence[int]) -> None:
        self._each = [ProcessCollector(pid=partial(int, pid), registry=None) for pid in processes]

    def describe(self) -> Sequence[Metric]:
        """Nothing: a scrape tells what there is."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of metrics."""
        sums: dict[str, Metric] = {}
        for collector in self._each:
            for metric in collector.collect():
                known = sums.setdefault(metric.name, metric)
                if known is metric:
                    continue
                least = metric.name == "process_start_time_seconds"
                known.samples = [
                    one._replace(value=min(one.value, other.value) if least else one.value + other.value)
                    for one, other in zip(known.samples, metric.samples, strict=True)
                ]
        yield from sums.values()


def exposition(batchers: Iterable[Batcher | Counted], processes: Sequence[int] = ()) -> CollectorRegistry:
    """A registry of the models' numbers and those of the process, or of all ``processes``."""
    registry = CollectorRegistry()
    if processes:
        registry.register(ProcessesCollector(processes))
    else:
        ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(ModelCollector(batchers))
    return registry


def text(registry: CollectorRegistry) -> bytes:
    """What a scrape gets."""
    return generate_latest(registry)


def _cumulative(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    buckets, seen = [], 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        seen += count
        buckets.append((str(bound), float(seen)))
    return buckets, histogram.total
