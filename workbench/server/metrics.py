"""``/metrics``: what is counted (workbench.server.meter), in the text form of Prometheus.

Names are those of Triton without its prefix, in seconds as Prometheus asks for
(https://prometheus.io/docs/practices/naming/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from workbench.server.batcher import Batcher
from workbench.server.gpu import gpu_collector
from workbench.server.meter import Histogram
from workbench.server.shared import Counted, Shared, extras_of

if TYPE_CHECKING:
    from workbench.server.cache import ResponseCache
    from workbench.server.observe import Observer

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
_LABELS = ("model", "version")
_HISTOGRAMS = (
    ("inference_queue_seconds", "From a request's arrival to the run that computed it.", "queue"),
    ("inference_compute_seconds", "A run of the model.", "compute"),
    ("inference_batch_rows", "Rows that one run computed.", "joined"),
)

_EXTRAS = {
    "cache_evictions": (CounterMetricFamily, "Answers dropped to make room."),
    "cache_entries": (GaugeMetricFamily, "Answers that are held."),
    "cache_bytes": (GaugeMetricFamily, "Bytes that they take."),
    "access_log_lost": (CounterMetricFamily, "Lines that were not written."),
    "trace_spans_lost": (CounterMetricFamily, "Spans that were not made."),
}


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


class ExtrasCollector:
    """The numbers that are of no model: those of :data:`_EXTRAS` that ``extras`` gives at a scrape."""

    def __init__(self, extras: Callable[[], Mapping[str, int]], batchers: Iterable[Batcher | Counted]) -> None:
        self._extras = extras
        self._batchers = batchers

    def describe(self) -> Sequence[Metric]:
        """Nothing: a scrape tells what there is."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of metrics."""
        extras = self._extras()
        if "cache_entries" in extras:
            hits = CounterMetricFamily("cache_hits", "Requests that the response cache answered.", labels=_LABELS)
            misses = CounterMetricFamily("cache_misses", "Requests that it did not know.", labels=_LABELS)
            for each in self._batchers:
                of = (each.model.name, each.model.version)
                hits.add_metric(of, each.meter.cache_hits)
                misses.add_metric(of, each.meter.cache_misses)
            yield from (hits, misses)
        for name, value in extras.items():
            family, told = _EXTRAS[name]
            yield family(name, told, value=value)


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


def exposition(
    batchers: Iterable[Batcher], cache: ResponseCache | None = None, observer: Observer | None = None
) -> CollectorRegistry:
    """A registry of the models' numbers, of the process, of GPUs, and of those of ``cache`` and ``observer`` that are
    there."""
    registry = _registry(batchers, partial(extras_of, cache, observer))
    ProcessCollector(registry=registry)
    return registry


def exposition_of_all(shared: Shared) -> CollectorRegistry:
    """A registry of what all workers told last."""
    registry = _registry(shared, lambda: shared.extras)
    registry.register(ProcessesCollector(shared.processes))
    return registry


def _registry(batchers: Iterable[Batcher | Counted], extras: Callable[[], Mapping[str, int]]) -> CollectorRegistry:
    registry = CollectorRegistry()
    PlatformCollector(registry=registry)
    registry.register(ModelCollector(batchers))
    registry.register(ExtrasCollector(extras, batchers))
    if (gpus := gpu_collector()) is not None:
        registry.register(gpus)
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
