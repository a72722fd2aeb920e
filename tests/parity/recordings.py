"""Recorded exchanges with a real kube-apiserver, and how two of them are compared. No I/O but reading.

What differs from run to run (times, uids, versions, generated names, ages) is replaced by words
before comparing; everything else counts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

Json = dict[str, Any]

UNNAMED = {"uid", "resourceVersion", "storageVersionHash", "continue", "clusterIP", "clusterIPs"}
_TEXT = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b(gen-|e-|kube-api-access-|kopf-event-)[a-z0-9]{5}\b"), r"\1<name>"),
    (re.compile(r'("?resourceVersion"?[:=] ?"?)\d+'), r"\1<version>"),
    (re.compile(r"(Resource Version: +)\d+"), r"\1<version>"),
    (re.compile(r"(resource version: )\d+( \(| current: |, current: )?\d*\)?"), r"\1<version>"),
    (re.compile(r"\b\d+(s|m|h|d)\b(\d+(s|m|h)\b)?"), "<age>"),
    (re.compile(r"ey[\w-]+\.[\w-]+\.[\w-]+"), "<jwt>"),
    (re.compile(r"https?://[\w.]+:\d+"), "<server>"),
    (re.compile(r"(/tmp|<tmp>)/(LIVE|MERGED)(-\d+)?"), r"<tmp>/\2"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.\d]* [+-]\d{4}"), "<time>"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" +$", re.MULTILINE), ""),
)


def folder() -> Path | None:
    """Return where the recordings lie; None if they are not on this machine."""
    root = Path(os.environ.get("LORALAND_SHARED") or Path(__file__).parents[2].parent / "shared")
    found = root / "apiserver"
    return found if (found / "kubectl.json").exists() else None


def load(name: str) -> list[Json]:
    found = folder()
    if found is None:
        raise FileNotFoundError(
            "no recordings: point LORALAND_SHARED at the folder with apiserver/"
        )
    steps: list[Json] = json.loads((found / name).read_text())
    return steps


def files(steps: list[Json]) -> dict[str, str]:
    """Rebuild the files that commands name from what was applied."""
    found = {}
    for step in steps:
        match = re.search(r"-f (\S+\.yaml)", step["command"])
        if match is None or match[1] in found:
            continue
        for exchange in step["exchanges"]:
            body = exchange["request"].get("body")
            if exchange["request"]["method"] == "POST" and isinstance(body, dict):
                annotations = body["metadata"].get("annotations", {})
                last = annotations.get("kubectl.kubernetes.io/last-applied-configuration")
                found[match[1]] = last or json.dumps(body)
    return found


def plain(text: str) -> str:
    for pattern, word in _TEXT:
        text = pattern.sub(word, text)
    return text.strip()


def normal(value: Any, key: str = "") -> Any:
    """Return a body with everything that may differ replaced."""
    if isinstance(value, dict):
        return {
            name: ("<varies>" if name in UNNAMED else normal(entry, name))
            for name, entry in value.items()
        }
    if isinstance(value, list):
        found = [normal(entry, key) for entry in value]
        # Entries of one second are in the order of their names.
        return sorted(found, key=_manager) if key == "managedFields" else found
    if isinstance(value, str):
        return "<varies>" if key == "description" else plain(value)
    return value


def _manager(entry: Json) -> tuple[str, ...]:
    return tuple(str(entry.get(key, "")) for key in ("operation", "manager", "subresource"))


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing that the embedded API answers otherwise."""

    where: str
    real: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.where}: real {_short(self.real)}, ours {_short(self.ours)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:160] + "…"


def differences(real: Any, ours: Any, where: str = "") -> list[Difference]:
    """Compare two normal bodies; lists of causes and columns in any order count as equal."""
    if isinstance(real, dict) and isinstance(ours, dict):
        found = []
        for key in sorted(real.keys() | ours.keys()):
            inner = f"{where}.{key}"
            if key not in real or key not in ours:
                found.append(
                    Difference(inner, real.get(key, "(absent)"), ours.get(key, "(absent)"))
                )
            else:
                found += differences(real[key], ours[key], inner)
        return found
    if isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        if where.endswith(("causes", "verbs")):
            real, ours = (sorted(side, key=json.dumps) for side in (real, ours))
        return [
            entry
            for index, (one, other) in enumerate(zip(real, ours, strict=True))
            for entry in differences(one, other, f"{where}[{index}]")
        ]
    return [] if real == ours else [Difference(where, real, ours)]


def same_message(real: str, ours: str) -> bool:
    """Tell whether two messages say the same, faults in any order."""

    def parts(text: str) -> list[str]:
        return sorted(
            re.split(
                r"\n\* |, (?=[\w.<\[])|\n|is invalid: ", text.replace("[", "").replace("]", "")
            )
        )

    return parts(plain(real)) == parts(plain(ours))
