"""String formats that schemas name, and names that objects may carry. No I/O."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import ipaddress
import re
import uuid
from collections.abc import Callable

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
LABEL = re.compile(_LABEL)
_DURATION = re.compile(r"[-+]?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d|w))+|0")
QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")

_SUBDOMAIN_FAULT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or"
    " '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used"
    " for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_FAULT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and"
    " must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex"
    " used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def name_fault(name: str) -> str | None:
    """Say why a text is no object name (a DNS subdomain); None if it is one."""
    if len(name) > 253:
        return "must be no more than 253 characters"
    return None if SUBDOMAIN.fullmatch(name) else _SUBDOMAIN_FAULT


def label_fault(name: str) -> str | None:
    """Say why a text is no DNS label; None if it is one."""
    if len(name) > 63:
        return "must be no more than 63 characters"
    return None if LABEL.fullmatch(name) else _LABEL_FAULT


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def _is_date_time(text: str) -> bool:
    shape = re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", text)
    return shape is not None and _parses(parse_time)(text)


def parse_time(text: str) -> dt.datetime:
    """Read RFC 3339; more than six digits of a second are cut."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", text.upper().replace("Z", "+00:00"))
    return dt.datetime.fromisoformat(text)


def canonical_time(text: str, digits: int) -> str:
    """Write a time in UTC with so many digits of a second; what is no time stays as it is."""
    if not _is_date_time(text):
        return text
    moment = parse_time(text).astimezone(dt.UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds" if digits else "seconds") + "Z"


_FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _is_date_time,
    "date": _parses(dt.date.fromisoformat),
    "uuid": _parses(uuid.UUID),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(ipaddress.ip_network),
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "quantity": lambda text: QUANTITY.fullmatch(text) is not None,
    "email": lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None,
    "hostname": lambda text: SUBDOMAIN.fullmatch(text.lower()) is not None,
}


def is_valid(form: str, text: str) -> bool:
    """Tell whether a text has a format; unknown formats hold for everything."""
    check = _FORMATS.get(form)
    return check is None or check(text)
