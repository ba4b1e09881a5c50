"""``/metrics``: what is counted (workbench.server.meter), in the text form of Prometheus.

Names are those of Triton without its prefix, in seconds as Prometheus asks for
(https://prometheus.io/docs/practices/naming/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from workbench.server.batcher import Batcher
from workbench.server.gpu import gpu_collector
from workbench.server.meter import Histogram

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


class ModelCollector:
    """The numbers of the models that ``batchers`` gives, which may be others at each scrape."""

    def __init__(self, batchers: Iterable[Batcher]) -> None:
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


class CacheCollector:
    """The numbers of the response cache."""

    def __init__(self, cache: ResponseCache, batchers: Iterable[Batcher]) -> None:
        self._cache = cache
        self._batchers = batchers

    def describe(self) -> Sequence[Metric]:
        """Nothing: a scrape tells what there is."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of metrics."""
        hits = CounterMetricFamily("cache_hits", "Requests that the response cache answered.", labels=_LABELS)
        misses = CounterMetricFamily("cache_misses", "Requests that it did not know.", labels=_LABELS)
        for each in self._batchers:
            of = (each.model.name, each.model.version)
            hits.add_metric(of, each.meter.cache_hits)
            misses.add_metric(of, each.meter.cache_misses)
        yield from (hits, misses)
        yield CounterMetricFamily("cache_evictions", "Answers dropped to make room.", value=self._cache.evicted)
        yield GaugeMetricFamily("cache_entries", "Answers that are held.", value=len(self._cache))
        yield GaugeMetricFamily("cache_bytes", "Bytes that they take.", value=self._cache.held)


class LossCollector:
    """What was to be told of requests, and could not be."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def describe(self) -> Sequence[Metric]:
        """Nothing: a scrape tells what there is."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of metrics."""
        if self._observer.log is not None:
            yield CounterMetricFamily("access_log_lost", "Lines that were not written.", value=self._observer.log.lost)
        if self._observer.tracer is not None:
            yield CounterMetricFamily("trace_spans_lost", "Spans that were not made.", value=self._observer.tracer.lost)


def exposition(
    batchers: Iterable[Batcher], cache: ResponseCache | None = None, observer: Observer | None = None
) -> CollectorRegistry:
    """A registry of the models' numbers, of the process, of GPUs, and of those of ``cache`` and ``observer`` that are
    there."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(ModelCollector(batchers))
    if (gpus := gpu_collector()) is not None:
        registry.register(gpus)
    if cache is not None:
        registry.register(CacheCollector(cache, batchers))
    if observer is not None:
        registry.register(LossCollector(observer))
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
