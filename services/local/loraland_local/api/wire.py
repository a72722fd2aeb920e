"""Reads built-in kinds in Kubernetes' protobuf encoding, as kubectl and Helm send them. No I/O.

Answers are always JSON: every client that sends protobuf also accepts that.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import importlib.resources
import json
import struct
from collections.abc import Iterator
from typing import Any

from .errors import bad_request

Json = dict[str, Any]

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
META = "io.k8s.apimachinery.pkg.apis.meta.v1"


@functools.cache
def _table() -> dict[str, dict[int, tuple[str, str, str]]]:
    text = (importlib.resources.files(__package__ or "") / "wire.json").read_text()
    return {
        message: {number: (name, kind, flags) for number, name, kind, flags in rows}
        for message, rows in json.loads(text).items()
    }


@functools.cache
def _zeros() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for message, rows in _table().items():
        zeros = found.setdefault(message, {})
        for name, kind, flags in rows.values():
            if "v" in flags:
                zeros[name] = None if kind in _SPECIAL else {}
            elif "z" in flags and "p" not in flags:
                zeros[name] = None if set(flags) & {"r", "m"} else _SCALAR_ZEROS.get(kind)
    return found


_SCALAR_ZEROS: dict[str, Any] = {"string": "", "bool": False, "int32": 0, "int64": 0}


def zero(message: str, field: str, otherwise: Any) -> Any:
    """Return what Go writes for a field that nobody has set; ``otherwise`` if it writes nothing."""
    return _zeros().get(message, {}).get(field, otherwise)


@functools.cache
def _omitted_when_empty() -> dict[str, frozenset[str]]:
    return {
        message: frozenset(
            name for name, _, flags in rows.values() if not set(flags) & {"p", "v", "z"}
        )
        for message, rows in _table().items()
    }


def omits(message: str, field: str, value: Any) -> bool:
    """Tell whether Go leaves a field out that has this empty value."""
    if value is None:
        return message in _table()
    return field in _omitted_when_empty().get(message, ())


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        result |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return result, at
        shift += 7


def _entries(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield field numbers with their raw values: an int, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
            if len(value) != size:
                raise IndexError
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        else:
            raise IndexError
        yield tag >> 3, value


def _signed(value: int, bits: int) -> int:
    value &= (1 << 64) - 1
    value = value - (1 << 64) if value >= 1 << 63 else value
    return value if bits == 64 else (value + 2**31) % 2**32 - 2**31


def _time(data: bytes, *, micro: bool) -> str | None:
    parts = dict(_entries(data))
    if not parts:
        return None
    seconds = _signed(parts.get(1, 0), 64)
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{_signed(parts.get(2, 0), 32) // 1000:06d}Z" if micro else f"{text}Z"


def _int_or_string(data: bytes) -> int | str:
    parts = dict(_entries(data))
    if parts.get(1, 0):
        return str(parts.get(3, b"").decode())
    return _signed(parts.get(2, 0), 32)


def _raw(data: bytes) -> Any:
    parts = dict(_entries(data))
    return json.loads(parts[1]) if parts.get(1) else None


_SPECIAL: dict[str, Any] = {
    f"{META}.Time": lambda data: _time(data, micro=False),
    f"{META}.MicroTime": lambda data: _time(data, micro=True),
    f"{META}.FieldsV1": _raw,
    f"{META}.Duration": lambda data: f"{_signed(dict(_entries(data)).get(1, 0), 64) / 1e9:g}s",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _raw,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": lambda data: (
        dict(_entries(data)).get(1, b"").decode()
    ),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    "io.k8s.api.authentication.v1.ExtraValue": lambda data: [
        entry.decode() for _, entry in _entries(data)
    ],
    "io.k8s.api.authorization.v1.ExtraValue": lambda data: [
        entry.decode() for _, entry in _entries(data)
    ],
    f"{META}.Verbs": lambda data: [entry.decode() for _, entry in _entries(data)],
}


def _value(raw: Any, kind: str) -> Any:
    if kind == "string":
        return raw.decode()
    if kind == "bytes":
        return base64.b64encode(raw).decode()
    if kind == "bool":
        return bool(raw)
    if kind in {"int32", "int64", "uint32", "uint64"}:
        return _signed(raw, 32 if kind.endswith("32") else 64)
    if kind == "double":
        return struct.unpack("<d", raw)[0]
    special = _SPECIAL.get(kind)
    return special(raw) if special else decode_message(raw, kind)


def decode_message(data: bytes, message: str) -> Json:
    """Read one message as the JSON that Go would have written."""
    fields = _table()[message]
    found: Json = {}
    for number, raw in _entries(data):
        if number not in fields:
            continue
        name, kind, flags = fields[number]
        if "m" in flags:
            pair = dict(_entries(raw))
            empty: Any = 0 if kind in {"bool", "int32", "int64"} else b""
            key = pair.get(1, b"").decode()
            found.setdefault(name, {})[key] = _value(pair.get(2, empty), kind)
        elif "r" in flags:
            found.setdefault(name, []).append(_value(raw, kind))
        elif "i" in flags:
            found |= _value(raw, kind)
        else:
            value = _value(raw, kind)
            if value in ("", 0, None, False) and "p" not in flags:
                continue
            if value == {} and "v" in flags:
                continue
            found[name] = value
    return found


def decode(body: bytes, message: str | None = None) -> Json:
    """Read a whole request body: the magic, the envelope and the object inside."""
    try:
        if not body.startswith(MAGIC):
            raise IndexError
        envelope = dict(_entries(body[len(MAGIC) :]))
        type_meta = dict(_entries(envelope.get(1, b"")))
        api_version, kind = type_meta.get(1, b"").decode(), type_meta.get(2, b"").decode()
        name = message or _message_name(api_version, kind)
        obj = decode_message(envelope.get(2, b""), name)
    except (IndexError, KeyError, ValueError) as error:
        raise bad_request(
            f"the protobuf body cannot be read ({type(error).__name__}: {error}); send JSON"
        ) from error
    if api_version:
        obj = {"apiVersion": api_version, "kind": kind, **obj}
    return obj


def _message_name(api_version: str, kind: str) -> str:
    if kind in {"DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions"}:
        return f"{META}.{kind}"
    group, _, version = api_version.rpartition("/")
    return f"io.k8s.api.{group.split('.')[0] or 'core'}.{version}.{kind}"
