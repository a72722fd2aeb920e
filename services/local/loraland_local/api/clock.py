"""Times as the API writes them. The only module that asks the system for the time."""

from __future__ import annotations

import datetime
import time


def now() -> str:
    return after(0)


def after(seconds: float) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch_s() -> int:
    return int(time.time())


def age(since: str | None, at: datetime.datetime | None = None) -> str:
    """Write how long ago something was, the way kubectl does (``5m30s``, ``3h``)."""
    if not since:
        return "<unknown>"
    moment = datetime.datetime.fromisoformat(since.replace("Z", "+00:00"))
    seconds = int(((at or datetime.datetime.now(datetime.UTC)) - moment).total_seconds())
    return duration(seconds)


def duration(seconds: int) -> str:
    """Write a length of time with at most two units."""
    if seconds < 0:
        return "0s" if seconds > -2 else "<invalid>"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(first: int, first_unit: str, second: int, second_unit: str) -> str:
    return f"{first}{first_unit}{second}{second_unit}" if second else f"{first}{first_unit}"
