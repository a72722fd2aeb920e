"""Prometheus metrics of a replica, by the naming conventions of Prometheus. No adapter labels yet."""

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What is counted; one instance a process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.requests = Counter(
            "loraland_requests", "Requests by method and gRPC status.", ["method", "code"],
            registry=registry,
        )  # fmt: skip
        self.prompt_tokens = Counter(
            "loraland_prompt_tokens", "Prompt tokens of finished requests.", registry=registry
        )
        self.output_tokens = Counter(
            "loraland_output_tokens", "Tokens generated for finished requests.", registry=registry
        )
        self.ttft = Histogram(
            "loraland_ttft_seconds", "Time from a request to its first token.",
            buckets=_LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.adapter_load = Histogram(
            "loraland_adapter_load_seconds", "Time a request waited for its adapter.",
            buckets=_LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._registry = registry

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Export a value that is read when Prometheus asks."""
        Gauge(f"loraland_{name}", text, registry=self._registry).set_function(read)
