"""Logging set-up, the same for every process: text for people, JSON lines for collectors."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from loraland_core.errors import InvalidInput

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Libraries that say every request aloud.
_QUIET = (
    "absl",
    "aiohttp.access",
    "boto3",
    "botocore",
    "filelock",
    "httpx",
    "httpx2",
    "s3transfer",
    "urllib3",
)
_bound: ContextVar[Mapping[str, Any]] = ContextVar("bound")


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Put the fields into every JSON line that is logged in the block, by whomever it calls."""
    token = _bound.set({**_bound.get({}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; ``extra`` and ``bound`` fields become keys."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        document.update(_bound.get({}))
        extra = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        document.update(extra)
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str, ensure_ascii=False)


def configure(*, level: str = "INFO", as_json: bool = False) -> None:
    """Send all logs to standard error in one format; call once, in ``main``.

    Raises ``InvalidInput`` for a level that does not exist.
    """
    if level.upper() not in LEVELS:
        raise InvalidInput(
            f"is {level!r}; expected one of {', '.join(LEVELS)}", field="LORALAND_LOG_LEVEL"
        )
    handler = logging.StreamHandler(sys.stderr)
    if as_json:
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
