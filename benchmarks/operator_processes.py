"""Processor time and memory of the processes that a benchmark has started."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil


class Processes:
    """Processor time and memory of the operator and of the API server."""

    def __init__(self) -> None:
        self._peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def cpu_s(self, module: str) -> float:
        return sum(sum(p.cpu_times()[:2]) for p in _children(module))

    @property
    def peak_bytes(self) -> int:
        return self._peak_bytes

    @contextmanager
    def sampled(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.5):
            for process in _children("loraland_operator"):
                # It may end between two looks.
                with suppress(psutil.NoSuchProcess):
                    self._peak_bytes = max(self._peak_bytes, process.memory_info().rss)


def _children(module: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if module in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
