"""Prometheus metrics of the operator."""

import time
from collections import Counter as Counts
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import prometheus_client
from loraland_core import names
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

from loraland_operator.mirror import Mirror

RECONCILES = Counter("loraland_operator_reconciles", "Reconciliations, by kind.", ["kind"])
ERRORS = Counter("loraland_operator_reconcile_errors", "Failed reconciliations.", ["kind"])
SECONDS = Histogram("loraland_operator_reconcile_seconds", "Time of a reconciliation.", ["kind"])
LEADING = Gauge("loraland_operator_leading", "1 while this process holds the Lease.")
QUEUE = Gauge("loraland_operator_queue_length", "Objects that wait for a worker.")
READY_SECONDS = Histogram(
    "loraland_operator_ready_seconds",
    "From the creation of the FineTuneJob, or of the Adapter, to a replica that serves it.",
    ["kind"],
    buckets=(1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400),
)


@contextmanager
def observed(kind: str) -> Iterator[None]:
    """Count and time one reconciliation."""
    start_s = time.monotonic()
    RECONCILES.labels(kind).inc()
    try:
        yield
    except Exception:
        ERRORS.labels(kind).inc()
        raise
    finally:
        SECONDS.labels(kind).observe(time.monotonic() - start_s)


class Phases:
    """How many objects there are in each phase, counted when somebody asks."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def collect(self) -> Iterable[GaugeMetricFamily]:
        labels = ["phase"]
        families = {
            names.FINE_TUNE_JOB: GaugeMetricFamily(
                "loraland_operator_jobs", "FineTuneJobs by phase.", labels=labels
            ),
            names.ADAPTER: GaugeMetricFamily(
                "loraland_operator_adapters", "Adapters by phase.", labels=labels
            ),
        }
        for kind, family in families.items():
            phases = Counts({phase.value: 0 for phase in names.PHASES[kind]})
            for obj in self._mirror.of_kind(kind):
                phases[(obj.get("status") or {}).get("phase") or names.Phase.PENDING.value] += 1
            for phase, number in sorted(phases.items()):
                family.add_metric([phase], number)
            yield family


def show_phases(mirror: Mirror) -> None:
    """Have scrapes tell of the objects in the mirror."""
    prometheus_client.REGISTRY.register(Phases(mirror))


def serve(address: str, port: int) -> None:
    """Answer ``GET /metrics`` from a thread of its own."""
    prometheus_client.start_http_server(port, addr=address)
