"""A TCP proxy with a gate: what is behind it can be made slow or unreachable at will."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Gate:
    """Forwards connections to a port while open, each byte after a delay; holds all while closed."""

    def __init__(self, target_port: int, *, delay_s: float = 0.0) -> None:
        self._target_port = target_port
        self._delay_s = delay_s
        self._is_open = threading.Event()
        self._is_open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._is_open.set()
        with suppress(OSError):
            # Closing alone would leave ``accept`` waiting.
            self._listener.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Hold all traffic until the block ends."""
        self._is_open.clear()
        try:
            yield
        finally:
            self._is_open.set()

    def _accept(self) -> None:
        with self._listener, suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target_port)) as server:
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._is_open.wait()
                time.sleep(self._delay_s)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
