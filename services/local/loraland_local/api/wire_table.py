"""Writes `wire.json` from checkouts of kubernetes/api, apimachinery and apiextensions-apiserver.

Run `python -m loraland_local.api.wire_table API APIMACHINERY APIEXTENSIONS` after a release; the
table holds field numbers and Go's omit-if-empty rules, which the wire format needs to be read.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

PACKAGES = (
    *("admissionregistration/v1", "apps/v1", "authentication/v1", "authorization/v1"),
    *("autoscaling/v1", "autoscaling/v2", "batch/v1", "coordination/v1", "core/v1"),
    *("discovery/v1", "events/v1", "networking/v1", "node/v1", "policy/v1", "rbac/v1"),
    *("scheduling/v1", "storage/v1"),
)
APIEXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1"
META = "pkg/apis/meta/v1"
_MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(
    r"^  (?:(optional|repeated) ([\w.]+)|map<(\w+), ([\w.]+)>) (\w+) = (\d+);", re.MULTILINE
)
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_GO_FIELD = re.compile(
    r'^\t(?:(\w+) +)?([*\[\]\w.]+) +`json:"([^"]*)"[^`]*?protobuf:"\w+,(\d+)[^`]*`', re.MULTILINE
)


def _full(name: str, package: str) -> str:
    if name.startswith("."):
        return "io.k8s." + name.removeprefix(".k8s.io.")
    return f"{package}.{name}" if name[0].isupper() else name


def _go_fields(folder: Path) -> dict[tuple[str, int], tuple[str, str]]:
    """Map (struct, field number) to its Go type and JSON tag."""
    found = {}
    for path in sorted(folder.glob("*.go")):
        for struct, body in _STRUCT.findall(path.read_text()):
            for _, go_type, tag, number in _GO_FIELD.findall(body):
                found[struct, int(number)] = (go_type, tag)
    return found


def _flags(go_type: str, tag: str, label: str, kind: str) -> str:
    name, _, options = tag.partition(",")
    flags = {"repeated": "r", "map": "m"}.get(label, "")
    if not name:
        flags += "i"
    if go_type.startswith("*"):
        flags += "p"
    elif label == "optional" and "." in kind and name and "omitzero" not in options:
        flags += "v"
    if "omitempty" not in options and "omitzero" not in options:
        flags += "z"
    return flags


def table(folder: Path, package: str) -> dict[str, list[list[str | int]]]:
    messages: dict[str, list[list[str | int]]] = {}
    go_fields = _go_fields(folder)
    for message, body in _MESSAGE.findall((folder / "generated.proto").read_text()):
        rows: list[list[str | int]] = []
        for label, scalar, _, map_value, name, number in _FIELD.findall(body):
            kind = _full(scalar or map_value, package)
            go_type, tag = go_fields.get((message, int(number)), ("", name + ",omitempty"))
            json_name = tag.partition(",")[0] or name
            rows.append([int(number), json_name, kind, _flags(go_type, tag, label or "map", kind)])
        messages[f"{package}.{message}"] = rows
    return messages


def main(api: Path, apimachinery: Path, apiextensions: Path) -> None:
    messages = table(apimachinery / META, "io.k8s.apimachinery.pkg.apis.meta.v1")
    for package in PACKAGES:
        messages |= table(api / package, "io.k8s.api." + package.replace("/", "."))
    messages |= table(apiextensions / "pkg/apis/apiextensions/v1", APIEXTENSIONS)
    lines = [f"{json.dumps(name)}:{json.dumps(rows)}" for name, rows in sorted(messages.items())]
    target = Path(__file__).with_name("wire.json")
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
