"""The HTTP port: metrics and probes."""

import urllib.error
import urllib.request

import pytest
from loraland_core.errors import InvalidInput
from loraland_inference.endpoint import Endpoint
from prometheus_client import CollectorRegistry, Counter


@pytest.fixture(scope="module")
def served() -> tuple[Endpoint, str]:
    """An endpoint on a free port; its thread ends with the tests."""
    registry = CollectorRegistry()
    Counter("loraland_test", "A test.", registry=registry).inc()
    endpoint = Endpoint(registry)
    return endpoint, f"http://127.0.0.1:{endpoint.start('127.0.0.1', 0)}"


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:  # noqa: S310 (our own server)
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_served(served: tuple[Endpoint, str]) -> None:
    """In Prometheus's text form."""
    status, text = get(f"{served[1]}/metrics")

    assert (status, "loraland_test_total 1.0" in text) == (200, True)


@pytest.mark.parametrize(
    ("path", "is_ready", "status"),
    [("/livez", False, 200), ("/readyz", False, 503), ("/readyz", True, 200), ("/x", True, 404)],
)
def test_probe_tells_the_state(
    served: tuple[Endpoint, str], path: str, is_ready: bool, status: int
) -> None:
    """Alive as long as it answers; ready while it takes requests."""
    endpoint, url = served
    endpoint.is_ready = lambda: is_ready

    assert get(url + path)[0] == status


def test_port_that_is_taken_is_named(served: tuple[Endpoint, str]) -> None:
    """The setting to change is the field."""
    port = int(served[1].rsplit(":", 1)[1])

    with pytest.raises(InvalidInput, match="LORALAND_METRICS_PORT"):
        Endpoint(CollectorRegistry()).start("127.0.0.1", port)
