"""What the pod is doing, over HTTP: ``/progress`` for the operator, ``/metrics`` for Prometheus.

The server runs in threads of its own and only ever reads the latest snapshot, so that a slow reader
costs the training nothing.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from loraland_core.jobspec import Progress
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from loraland_trainer.lengths import DataReport

log = logging.getLogger(__name__)
REQUEST_TIMEOUT_S = 5.0
# How soon the server notices that it shall stop.
_POLL_S = 0.1


class Board:
    """The latest progress; written by one thread, read by any."""

    def __init__(self, listener: Callable[[Progress], None] | None = None) -> None:
        self._listener = listener
        self._progress = Progress()
        self._registry = CollectorRegistry()
        self._step = self._gauge("step", "Optimizer steps done.")
        self._total_steps = self._gauge("total_steps", "Optimizer steps planned.")
        self._loss = self._gauge("loss", "Training loss of the last step.")
        self._rows = {
            "learned": self._gauge("rows_learned", "Rows to learn from."),
            "held_out": self._gauge("rows_held_out", "Rows to be scored on."),
            "left_out": self._gauge("rows_left_out", "Rows that the job's filter leaves out."),
            "dropped": self._gauge("rows_dropped", "Rows left out because they are too long."),
            "cut": self._gauge("prompts_cut", "Training rows whose prompt lost its beginning."),
            "ends": self._gauge("completions_cut", "Training rows whose completion lost its end."),
        }
        self._tokens = self._gauge("tokens_per_second", "Tokens trained on, padding not counted.")
        self._measures = {
            "learning_rate": self._gauge("learning_rate", "Learning rate of the last step."),
            "gradient_norm": self._gauge("gradient_norm", "Gradients' norm before clipping."),
            "peak_memory_bytes": self._gauge(
                "peak_memory_bytes", "Most memory taken so far: the GPU's where there is one."
            ),
        }

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"loraland_trainer_{name}", text, registry=self._registry)

    @property
    def progress(self) -> Progress:
        return self._progress

    def update(self, **changes: Any) -> None:
        """Replace the named fields; readers see the whole change or none of it."""
        self._progress = progress = self._progress.model_copy(update=changes)
        if self._listener is not None:
            self._listener(progress)
        self._step.set(progress.step)
        self._total_steps.set(progress.total_steps)
        if progress.loss is not None:
            self._loss.set(progress.loss)
        if progress.tokens_per_second is not None:
            self._tokens.set(progress.tokens_per_second)

    def count_rows(self, data: DataReport) -> None:
        """Show what the job learns from, once that is known."""
        learned = data.learned
        numbers = {
            "learned": learned.num_rows - learned.num_dropped,
            "held_out": data.held_out.num_rows,
            "left_out": data.num_left_out,
            "dropped": learned.num_dropped,
            "cut": learned.num_prompts_cut,
            "ends": learned.num_completions_cut,
        }
        for name, number in numbers.items():
            self._rows[name].set(number)

    def measure(self, **values: float | None) -> None:
        """Set what only Prometheus is told; what is not known stays as it is."""
        for name, value in values.items():
            if value is not None:
                self._measures[name].set(value)

    def enter(self, phase: str) -> None:
        """Say in the log and on the board what begins now."""
        log.info("phase: %s", phase)
        self.update(phase=phase)

    def metrics(self) -> bytes:
        return generate_latest(self._registry)


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    board: Board

    def do_GET(self) -> None:
        if self.path == "/progress":
            self._answer(self.board.progress.to_json().encode(), "application/json")
        elif self.path == "/metrics":
            self._answer(self.board.metrics(), CONTENT_TYPE_LATEST)
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "only /progress and /metrics are here")

    def _answer(self, body: bytes, content_type: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the inherited name
        log.debug(format, *args)


@contextmanager
def served(board: Board, *, host: str, port: int) -> Iterator[int | None]:
    """Serve the board while the block runs; yield the port, or None where it could not be had.

    Nobody watching is no reason to stop training: a taken port costs the progress, not the job.
    """
    handler = type("Handler", (_Handler,), {"board": board})
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        log.warning(
            "cannot listen on %s:%d (%s): progress will not be seen", host, port, error.strerror
        )
        yield None
        return
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, args=(_POLL_S,), name="progress", daemon=True
    )
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
