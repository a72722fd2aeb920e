"""How one object is downloaded: in parallel ranges of one version, within limits. Used by ``store``.

boto3's transfer manager asks for the first range, learns the size and the version from its answer,
and for the others of that very version side by side. A range that breaks off is asked for again.
"""

import threading
import time
from collections.abc import Callable

from boto3.exceptions import RetriesExceededError
from boto3.s3.transfer import TransferConfig
from s3transfer.exceptions import S3DownloadFailedError, S3ValidationError

from loraland_core.errors import InvalidInput, Unavailable

RANGE_BYTES = 8 * 1024 * 1024
CONCURRENT_RANGES = 4
ATTEMPTS_PER_RANGE = 3
# A store slower than this is as good as away.
PATIENCE_S = 60.0
MIN_BYTES_PER_S = 64 * 1024
# What the transfer manager raises beyond botocore's own errors.
FAILURES = (RetriesExceededError, S3DownloadFailedError, S3ValidationError)


def build_config(max_bytes: int) -> TransferConfig:
    """Return the settings; what fits into one range needs no threads."""
    return TransferConfig(
        multipart_threshold=RANGE_BYTES,
        multipart_chunksize=RANGE_BYTES,
        max_concurrency=CONCURRENT_RANGES,
        num_download_attempts=ATTEMPTS_PER_RANGE,
        use_threads=max_bytes > RANGE_BYTES,
    )


class Watch:
    """Called for all that arrives, by several threads; ends a transfer that breaks its limits."""

    def __init__(
        self, where: str, *, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._where = where
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._clock = clock
        self._until_s = clock() + PATIENCE_S + max_bytes / MIN_BYTES_PER_S

    def __call__(self, num_bytes: int) -> None:
        """Count bytes; less than none where a range is asked for again."""
        with self._lock:
            self._num_bytes += num_bytes
            if self._num_bytes > self._max_bytes:
                raise InvalidInput(
                    f"is larger than the {self._max_bytes} bytes announced",
                    field=self._where,
                    reason="DigestMismatch",
                )
            if self._clock() > self._until_s:
                raise Unavailable(
                    f"artifact store is too slow: {self._num_bytes} bytes of {self._where} in"
                    f" {PATIENCE_S + self._max_bytes / MIN_BYTES_PER_S:.0f} s"
                )
