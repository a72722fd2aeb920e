"""Prometheus metrics of a replica, by the naming conventions of Prometheus. No I/O.

An adapter or a tenant is a label only while it is among the most used ones; see ``top_labels``.
docs/operations.md explains each metric.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from loraland_inference.adapters.observer import Observer
from loraland_inference.top_labels import TopLabels

LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
DEFAULT_TOP = 50
MAX_READS = 4
# The label of requests to the base model; no adapter can have it.
BASE = "base"
T = TypeVar("T")


class Metrics:
    """What is counted; one instance a process."""

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        *,
        top: int = DEFAULT_TOP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._clock = clock
        # By name of the label: the metrics that have it as their first.
        self._by_label: dict[str, list[Counter | Histogram]] = {"adapter": [], "tenant": []}
        self._adapters = TopLabels(top, on_drop=lambda name: self._drop("adapter", name))
        self._tenants = TopLabels(top, on_drop=lambda name: self._drop("tenant", name))
        self._add_requests()
        self._add_tokens()
        self._add_configuration()
        self.tiers = TierMetrics(registry)

    def _add_requests(self) -> None:
        self.requests = self._counter(
            "requests", "Requests by method and gRPC status.", "method", "code"
        )
        self.adapter_requests = self._counter(
            "adapter_requests", "Requests that name an adapter.", "adapter", "code"
        )
        self.tenant_requests = self._counter("tenant_requests", "Requests.", "tenant", "code")
        self.limited = self._counter(
            "tenant_limited_requests",
            "Requests refused by a tenant's own limit.",
            "tenant",
            "limit",
        )
        self.ttft = self._histogram(
            "ttft_seconds", "Time from a request to its first token.", LATENCY_BUCKETS_S, "adapter"
        )
        self.tpot = self._histogram(
            "tpot_seconds", "Time per output token after the first.", TOKEN_BUCKETS_S, "adapter"
        )
        self.queue = self._histogram(
            "queue_seconds", "Time a request waited in the engine's queue.", LATENCY_BUCKETS_S
        )
        self.prefill = self._histogram(
            "prefill_seconds", "Time from the queue's end to the first token.", LATENCY_BUCKETS_S
        )
        self.adapter_load = self._histogram(
            "adapter_load_seconds",
            "Time a request waited for its adapter, by the nearest tier that had it.",
            LATENCY_BUCKETS_S,
            "tier",
        )

    def _add_tokens(self) -> None:
        self.prompt_tokens = self._counter(
            "prompt_tokens", "Prompt tokens of finished requests.", "adapter"
        )
        self.cached_prompt_tokens = self._counter(
            "cached_prompt_tokens", "Those of them that were not computed again.", "adapter"
        )
        self.output_tokens = self._counter(
            "output_tokens", "Tokens generated for finished requests.", "adapter"
        )
        self.tenant_tokens = self._counter(
            "tenant_tokens", "Tokens that count against a tenant's limit.", "tenant"
        )

    def _add_configuration(self) -> None:
        self._reloads = Gauge(
            "loraland_config_reload_successful",
            "Whether the last reading of a mounted file that changed went well.",
            ["file"],
            registry=self._registry,
        )
        self._reload_failures = self._counter(
            "config_reload_failures", "Readings of a mounted file that failed.", "file"
        )

    def reloaded(self, file: str, is_good: bool) -> None:
        """Note that a mounted file was read anew: ``tokens`` or ``certificate``."""
        self._reloads.labels(file).set(is_good)
        if not is_good:
            self._reload_failures.labels(file).inc()

    def adapter_label(self, adapter_id: str) -> str:
        """Count a use of an adapter that exists; return what it is called in metrics."""
        return self._adapters.label(adapter_id, self._clock()) if adapter_id else BASE

    def tenant_label(self, tenant: str) -> str:
        return self._tenants.label(tenant, self._clock())

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Export a value that is read when Prometheus asks."""
        Gauge(f"loraland_{name}", text, registry=self._registry).set_function(_steady(read))

    def watch_counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """The same for what only grows, but for a start over."""
        self._registry.register(_Watched(CounterMetricFamily, name, text, "", lambda: {"": read()}))

    def watch_each(
        self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """Export a value for each of a few labels."""
        self._registry.register(_Watched(GaugeMetricFamily, name, text, label, read))

    def watch_each_counter(
        self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """The same for what only grows."""
        self._registry.register(_Watched(CounterMetricFamily, name, text, label, read))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        counter = Counter(f"loraland_{name}", text, labels, registry=self._registry)
        self._bound(counter, labels)
        return counter

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        histogram = Histogram(
            f"loraland_{name}", text, labels, buckets=buckets, registry=self._registry
        )
        self._bound(histogram, labels)
        return histogram

    def _bound(self, metric: Counter | Histogram, labels: tuple[str, ...]) -> None:
        if labels and labels[0] in self._by_label:
            self._by_label[labels[0]].append(metric)

    def _drop(self, label: str, name: str) -> None:
        """Remove the series of a name that has lost its label."""
        for metric in self._by_label[label]:
            metric.remove_by_labels({label: name})


class TierMetrics(Observer):
    """What the tiers of the adapter cache tell."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lookups = Counter(
            "loraland_adapter_lookups", "Requests by the nearest tier that had their adapter.",
            ["tier"], registry=registry,
        )  # fmt: skip
        self._moves = Histogram(
            "loraland_adapter_tier_load_seconds", "Time to bring an adapter into a tier.",
            ["tier"], buckets=LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._evictions = Counter(
            "loraland_adapter_evictions", "Adapters that were taken out of a tier.",
            ["tier"], registry=registry,
        )  # fmt: skip
        self._fetched = Counter(
            "loraland_adapter_fetched_bytes", "Read from the artifact store.", registry=registry
        )
        self._failures = Counter(
            "loraland_adapter_fetch_errors", "Fetches that ended without their adapter.",
            ["reason"], registry=registry,
        )  # fmt: skip

    def found(self, tier: str) -> None:
        self._lookups.labels(tier).inc()

    def moved(self, tier: str, duration_s: float) -> None:
        self._moves.labels(tier).observe(duration_s)

    def evicted(self, tier: str) -> None:
        self._evictions.labels(tier).inc()

    def fetched(self, num_bytes: int) -> None:
        self._fetched.inc(num_bytes)

    def fetch_failed(self, reason: str) -> None:
        self._failures.labels(reason).inc()


def _steady(read: Callable[[], T]) -> Callable[[], T]:
    """Try again where the loop changes what is read: Prometheus asks from a thread of its own."""

    def reading() -> T:
        for _ in range(MAX_READS - 1):
            with suppress(RuntimeError):
                return read()
        return read()

    return reading


class _Watched(Collector):
    """A metric whose values are read when Prometheus asks."""

    def __init__(
        self,
        family: Any,
        name: str,
        text: str,
        label: str,
        read: Callable[[], Mapping[str, float]],
    ) -> None:
        self._family, self._name, self._text = family, f"loraland_{name}", text
        self._labels = [label] if label else []
        self._read = _steady(read)

    def collect(self) -> Iterable[Metric]:
        family = self._family(self._name, self._text, labels=self._labels)
        for value_label, value in self._read().items():
            family.add_metric([value_label] if self._labels else [], value)
        yield family

    def describe(self) -> Iterable[Metric]:
        yield self._family(self._name, self._text, labels=self._labels)
