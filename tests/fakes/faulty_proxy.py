"""An HTTP proxy in front of a real S3 server that does to answers what networks and stores do.

It forwards one request at a time to the server and applies the faults that are set to the answer.
``Fault`` says which requests it is for and how often; without faults nothing is changed.
"""

import http.client
import http.server
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["slow", "throttle", "error", "reset", "short", "changed", "drip"]
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
)


@dataclass
class Fault:
    """What happens to GET requests whose path contains ``path``, ``times`` times at most.

    ``slow`` waits before it answers; ``throttle`` is 503 SlowDown; ``error`` 500; ``reset`` cuts the
    connection in the middle of the body; ``short`` gives half of the body as if it were all of it;
    ``changed`` gives a body of the same size that is not the object's; ``drip`` stalls in the
    middle of the body.
    """

    kind: Kind
    path: str = ""
    times: int = 1_000_000
    delay_s: float = 0.2
    num_hits: int = field(default=0, init=False)


class FaultyProxy:
    """Listens on a port of its own; ``set_faults`` and ``down`` may be used while it serves."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._is_down = threading.Event()
        self.num_requests = 0
        # Ranges that were asked for, in order.
        self.ranges: list[str] = []
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def _any(self) -> None:
                proxy._serve(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any  # noqa: N815 (the base class's)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._is_down.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def set_faults(self, *faults: Fault) -> None:
        with self._lock:
            self._faults = list(faults)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Cut every connection until the block ends."""
        self._is_down.set()
        try:
            yield
        finally:
            self._is_down.clear()

    def _fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if method == "GET" and fault.path in path and fault.num_hits < fault.times:
                    fault.num_hits += 1
                    return fault
        return None

    def _serve(self, request: http.server.BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.num_requests += 1
            if "Range" in request.headers:
                self.ranges.append(request.headers["Range"])
        if self._is_down.is_set():
            request.close_connection = True
            return
        fault = self._fault(request.command, request.path)
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.delay_s)
        if fault is not None and fault.kind in ("throttle", "error"):
            status = 503 if fault.kind == "throttle" else 500
            _answer(request, status, [("Content-Type", "application/xml")], SLOW_DOWN)
            return
        status, headers, body = self._ask(request)
        _answer(request, status, headers, body, fault)

    def _ask(
        self, request: http.server.BaseHTTPRequestHandler
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        length = int(request.headers.get("Content-Length") or 0)
        given = request.rfile.read(length) if length else None
        connection = http.client.HTTPConnection("127.0.0.1", self._target_port, timeout=60)
        try:
            connection.putrequest(
                request.command, request.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(given)
            answer = connection.getresponse()
            body = answer.read()
            dropped = {"connection", "transfer-encoding", "content-length", "keep-alive"}
            headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in dropped]
            if request.command == "HEAD":
                headers.append(("Content-Length", answer.getheader("Content-Length") or "0"))
            return answer.status, headers, body
        finally:
            connection.close()


def _answer(
    request: http.server.BaseHTTPRequestHandler,
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    fault: Fault | None = None,
) -> None:
    kind = fault.kind if fault is not None and status < 300 else ""
    if kind == "changed" and body:
        # The same size, other bytes: nothing but a hash can tell.
        body = bytes(b ^ 0x55 for b in body)
    if kind == "short":
        body = body[: len(body) // 2]
        headers = [(n, _shortened(v, len(body)) if n == "Content-Range" else v) for n, v in headers]
    with suppress(OSError):
        request.send_response_only(status)
        for name, value in headers:
            request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if kind in ("reset", "drip"):
            assert fault is not None
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            if kind == "drip":
                time.sleep(fault.delay_s)
                request.wfile.write(body[len(body) // 2 :])
                return
            request.close_connection = True
            return
        request.wfile.write(body)


def _shortened(content_range: str, num_bytes: int) -> str:
    """Return a range of an object that ends where the body ends."""
    unit, _, numbers = content_range.partition(" ")
    start = int(numbers.split("-")[0])
    return f"{unit} {start}-{start + num_bytes - 1}/{start + num_bytes}"


def random_faults(seed: int, *, count: int) -> list[Fault]:
    """Return faults of all kinds in a random order, each for a few requests."""
    generator = random.Random(seed)  # noqa: S311 (a test's dice)
    kinds: list[Kind] = ["slow", "throttle", "error", "reset", "short", "changed", "drip"]
    return [
        Fault(generator.choice(kinds), times=generator.randint(1, 3), delay_s=0.05)
        for _ in range(count)
    ]
