"""Times as the API writes them. The only module that asks the system for the time."""

from __future__ import annotations

import datetime as dt
import time


def now() -> str:
    return after(0)


def after(seconds: float) -> str:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch_s() -> int:
    return int(time.time())


def age(since: str | None, at: dt.datetime | None = None) -> str:
    """Write how long ago something was, the way kubectl does (``5m30s``, ``3h``)."""
    if not since:
        return "<unknown>"
    moment = dt.datetime.fromisoformat(since.replace("Z", "+00:00"))
    seconds = int(((at or dt.datetime.now(dt.UTC)) - moment).total_seconds())
    return duration(seconds)


def duration(seconds: int) -> str:
    """Write a length of time with at most two units."""
    if seconds < 0:
        return "0s" if seconds > -2 else "<invalid>"
    for limit_s, unit_s, unit, rest_s, rest_unit in _STEPS:
        if seconds < limit_s:
            rest = seconds % unit_s // rest_s if rest_s else 0
            return f"{seconds // unit_s}{unit}" + (f"{rest}{rest_unit}" if rest else "")
    return f"{seconds // _YEAR_S}y"


_MINUTE_S, _HOUR_S, _DAY_S, _YEAR_S = 60, 3600, 86400, 365 * 86400
# below this length: whole units of this many seconds, then the rest in smaller ones
_STEPS = (
    (2 * _MINUTE_S, 1, "s", 0, ""),
    (10 * _MINUTE_S, _MINUTE_S, "m", 1, "s"),
    (3 * _HOUR_S, _MINUTE_S, "m", 0, ""),
    (8 * _HOUR_S, _HOUR_S, "h", _MINUTE_S, "m"),
    (2 * _DAY_S, _HOUR_S, "h", 0, ""),
    (8 * _DAY_S, _DAY_S, "d", _HOUR_S, "h"),
    (2 * _YEAR_S, _DAY_S, "d", 0, ""),
    (8 * _YEAR_S, _YEAR_S, "y", _DAY_S, "d"),
)
