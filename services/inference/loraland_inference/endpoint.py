"""The plain HTTP port: metrics for Prometheus, and probes for what cannot speak gRPC by TLS.

Kubernetes' own gRPC probes speak clear text only. Nothing here tells of callers or adapters but
their names in metrics; keep it inside the cluster.
"""

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import prometheus_client
from loraland_core.errors import InvalidInput
from prometheus_client import REGISTRY, CollectorRegistry

TIMEOUT_S = 10.0
_TEXT = [("Content-Type", "text/plain; charset=utf-8")]


class Endpoint:
    """``/metrics``, ``/livez`` and ``/readyz``; ready only once it is told how to find out."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.is_ready: Callable[[], bool] = lambda: False
        self._metrics = prometheus_client.make_wsgi_app(registry)

    def start(self, host: str, port: int) -> int:
        """Serve from a thread until the process ends; return the port."""
        try:
            server = make_server(host, port, self._answer, _Server, handler_class=_Quiet)
        except OSError as error:
            raise InvalidInput(
                f"{host}:{port} cannot be had: {error.strerror}", field="LORALAND_METRICS_PORT"
            ) from error
        threading.Thread(target=server.serve_forever, name="endpoint", daemon=True).start()
        return int(server.server_port)

    def _answer(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                body: Iterable[bytes] = self._metrics(environ, start_response)
                return body
            case "/livez":
                status = "200 OK"
            case "/readyz":
                status = "200 OK" if self.is_ready() else "503 Service Unavailable"
            case _:
                status = "404 Not Found"
        start_response(status, _TEXT)
        return [status.partition(" ")[2].encode() + b"\n"]


class _Quiet(WSGIRequestHandler):
    """Says nothing of each request, and waits for none for long."""

    timeout = TIMEOUT_S

    def log_message(self, *_: Any) -> None:
        """A probe a second is no news."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
