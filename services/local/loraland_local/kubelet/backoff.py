"""How long a crashing container waits before its next start. Pure, no I/O."""

MAX_BACKOFF_S = 300.0
_FORGIVEN_AFTER_S = 600.0


class CrashBackoff:
    """Doubles with each crash; a container that ran for ten minutes starts afresh."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._num_crashes = 0

    def next_s(self, ran_for_s: float) -> float:
        """Take in an end after so many seconds; return the pause. The first costs nothing."""
        if ran_for_s >= _FORGIVEN_AFTER_S:
            self._num_crashes = 0
        self._num_crashes += 1
        if self._num_crashes == 1:
            return 0.0
        doubled: float = self._first_s * 2 ** min(self._num_crashes - 2, 16)
        return min(doubled, MAX_BACKOFF_S)
