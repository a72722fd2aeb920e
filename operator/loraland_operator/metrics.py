"""Prometheus metrics of the operator."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("loraland_operator_reconciles", "Reconciliations, by kind.", ["kind"])
ERRORS = Counter("loraland_operator_reconcile_errors", "Failed reconciliations.", ["kind"])
SECONDS = Histogram("loraland_operator_reconcile_seconds", "Time of a reconciliation.", ["kind"])
QUEUE = Gauge("loraland_operator_queue_length", "Objects that wait for a worker.")


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


def serve(address: str, port: int, *, queue_length: Callable[[], int]) -> None:
    """Answer ``GET /metrics`` from a thread of its own."""
    QUEUE.set_function(queue_length)
    prometheus_client.start_http_server(port, addr=address)
