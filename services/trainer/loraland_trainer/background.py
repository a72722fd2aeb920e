"""Work beside the training, one piece after another; of the pieces that wait, only the newest stays.

A store that is slower than the checkpoints come must neither hold up the steps nor fill the disk.
"""

import threading
from collections.abc import Callable
from pathlib import Path

Work = Callable[[int, Path], None]


class Background:
    """A thread that lives while there is work. ``work`` and ``drop`` must not raise."""

    def __init__(self, work: Work, *, drop: Work) -> None:
        self._work = work
        self._drop = drop
        self._lock = threading.Lock()
        self._waiting: tuple[int, Path] | None = None
        self._thread: threading.Thread | None = None

    def put(self, number: int, folder: Path) -> None:
        """Have a piece of work done; it takes the place of the one that still waits, if any."""
        with self._lock:
            replaced, self._waiting = self._waiting, (number, folder)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="background", daemon=True)
                self._thread.start()
        if replaced is not None:
            self._drop(*replaced)

    def wait(self) -> None:
        """Wait until nothing is left to do."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                piece, self._waiting = self._waiting, None
                if piece is None:
                    self._thread = None
                    return
            self._work(*piece)
