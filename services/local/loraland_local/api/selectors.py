"""Label and field selectors: parse once, match many. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import bad_request
from .kinds import ResourceType

Json = dict[str, Any]
Match = Callable[[Json], bool]

_REQUIREMENT = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<key0>[\w./-]+)"
    r"|(?P<key1>[\w./-]+)\s*(?:(?P<op>==|=|!=|>|<)\s*(?P<value>[\w.-]*)"
    r"|(?P<set>in|notin)\s*\((?P<values>[^)]*)\))?)\s*(?:,|$)"
)

_COMMON_FIELDS = {"metadata.name", "metadata.namespace"}
_FIELDS: dict[tuple[str, str], set[str]] = {
    ("", "pods"): {
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    },
    ("", "events"): {
        *(
            f"involvedObject.{part}"
            for part in (
                "kind",
                "namespace",
                "name",
                "uid",
                "apiVersion",
                "resourceVersion",
                "fieldPath",
            )
        ),
        "reason",
        "reportingComponent",
        "source",
        "type",
    },
    ("", "nodes"): {"spec.unschedulable"},
    ("", "namespaces"): {"status.phase"},
    ("", "secrets"): {"type"},
    ("", "replicationcontrollers"): {"status.replicas"},
    ("apps", "replicasets"): {"status.replicas"},
    ("batch", "jobs"): {"status.successful"},
    ("certificates.k8s.io", "certificatesigningrequests"): {"spec.signerName"},
}


def _requirement(match: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    key, operator, value = match["key0"] or match["key1"], match["op"], match["value"]
    if match["set"]:
        values = {entry.strip() for entry in match["values"].split(",")}
        wanted = match["set"] == "in"
        return lambda labels: (labels.get(key) in values) == wanted
    if operator is None:
        wanted = not match["absent"]
        return lambda labels: (key in labels) == wanted
    if operator in {">", "<"}:
        return lambda labels: _compare(labels.get(key), operator, value)
    wanted = operator != "!="
    return lambda labels: (labels.get(key) == value) == wanted


def _compare(found: str | None, operator: str, bound: str) -> bool:
    if found is None or not found.lstrip("-").isdigit() or not bound.lstrip("-").isdigit():
        return False
    return int(found) > int(bound) if operator == ">" else int(found) < int(bound)


def labels(text: str) -> Match | None:
    """Parse a label selector; None when it selects everything."""
    tests = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None or match.end() == position:
            raise bad_request(
                f"unable to parse requirement: found '{text[position:]}', expected: identifier"
            )
        tests.append(_requirement(match))
        position = match.end()
    if not tests:
        return None

    def matches(obj: Json) -> bool:
        found = obj["metadata"].get("labels") or {}
        return all(test(found) for test in tests)

    return matches


def field_value(obj: Json, path: str) -> str:
    """Read a dotted path as the text a field selector compares with."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if path == "source":
        value = (obj.get("source") or {}).get("component") or obj.get("reportingComponent")
    if path == "status.successful":
        value = (obj.get("status") or {}).get("succeeded", 0)
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def fields(text: str, resource: ResourceType) -> Match | None:
    """Parse a field selector; an unknown field is refused by name."""
    terms = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, operator, value = match.groups()
        if not _supported(path, resource):
            raise bad_request(
                f'Unable to find "{resource.api_version}, Resource={resource.plural}" that match '
                f'label selector "", field selector "{text}": field label not supported: {path}'
            )
        if path == "spec.unschedulable" and value == "false":
            value = ""
        terms.append((path, operator != "!=", value))
    if not terms:
        return None
    return lambda obj: all((field_value(obj, path) == value) is want for path, want, value in terms)


def _supported(path: str, resource: ResourceType) -> bool:
    if path in _COMMON_FIELDS:
        return True
    if resource.custom is not None:
        return path in resource.custom.selectable
    return path in _FIELDS.get(resource.storage_key, ())


def both(first: Match | None, second: Match | None) -> Match | None:
    if first is None or second is None:
        return first or second
    return lambda obj: first(obj) and second(obj)
