"""Prometheus metrics of the operator."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("loraland_operator_reconciles", "Reconciliations, by kind.", ["kind"])
ERRORS = Counter("loraland_operator_reconcile_errors", "Failed reconciliations.", ["kind"])
SECONDS = Histogram("loraland_operator_reconcile_seconds", "Time of a reconciliation.", ["kind"])
LEADING = Gauge("loraland_operator_leading", "1 while this process holds the Lease.")
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


def serve(address: str, port: int) -> None:
    """Answer ``GET /metrics`` from a thread of its own."""
    prometheus_client.start_http_server(port, addr=address)
