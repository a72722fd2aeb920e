"""Keeps secrets out of what a process says: its log, tracebacks included, and its last message.

Known are the values of variables that hold secrets by their names, whoever prints them; and what
stands for a secret in a URL. Values that are too short to be told from words are left alone.
"""

import logging
import re
from collections.abc import Mapping

HIDDEN = "[hidden]"
MIN_LENGTH = 8
_SECRET_NAME = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|CREDENTIAL)", flags=re.IGNORECASE
)
# Not secrets, though they are named so: a file's place, and what Kubernetes itself sets.
_PLAIN_NAME = re.compile(r"(_FILE|_PATH|_DIR|_URI|_URL|TOKENIZERS_PARALLELISM)$")
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_SIGNED_URL = re.compile(
    r"([?&](?:X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token|Signature|token|sig)=)[^&\s'\"]+"
)


class Redactor:
    """Replaces secrets in text."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        values = {
            value
            for name, value in environment.items()
            if _SECRET_NAME.search(name)
            and not _PLAIN_NAME.search(name)
            and len(value) >= MIN_LENGTH
        }
        # The longest first: one may be a part of another.
        ordered = sorted(values, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def redact(self, text: str) -> str:
        if self._values is not None:
            text = self._values.sub(HIDDEN, text)
        text = _USER_IN_URL.sub(f"{HIDDEN}@", text)
        return _SIGNED_URL.sub(rf"\g<1>{HIDDEN}", text)


class RedactingFormatter(logging.Formatter):
    """Formats as another formatter does, without secrets."""

    def __init__(self, inner: logging.Formatter, redactor: Redactor) -> None:
        super().__init__()
        self._inner = inner
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.redact(self._inner.format(record))


def install(environment: Mapping[str, str]) -> Redactor:
    """Let every handler of the root logger pass through a redactor; return it."""
    redactor = Redactor(environment)
    for handler in logging.getLogger().handlers:
        inner = handler.formatter or logging.Formatter()
        handler.setFormatter(RedactingFormatter(inner, redactor))
    return redactor
