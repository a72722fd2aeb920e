"""What the cells of built-in kinds' tables say. No I/O; each reads one object."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from . import clock

Json = dict[str, Any]
Cell = Callable[[Json], Any]


def field(path: str, default: Any = "") -> Cell:
    parts = path.split(".")

    def cell(obj: Json) -> Any:
        value: Any = obj
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    return cell


def age(obj: Json) -> str:
    return clock.age(obj["metadata"].get("creationTimestamp"))


def template(obj: Json) -> Json:
    spec: Json = obj["spec"]
    owner: Json = (spec.get("jobTemplate") or {}).get("spec") or spec
    template: Json = (owner.get("template") or {}).get("spec") or {}
    return template


def containers(obj: Json) -> str:
    return ",".join(entry["name"] for entry in template(obj).get("containers") or [])


def images(obj: Json) -> str:
    return ",".join(entry.get("image", "") for entry in template(obj).get("containers") or [])


def selector_text(selector: Json | None) -> str:
    if not selector:
        return "<none>"
    labels = selector.get("matchLabels", selector if "matchExpressions" not in selector else {})
    parts = [f"{key}={value}" for key, value in sorted(labels.items())]
    for entry in selector.get("matchExpressions") or []:
        values = ",".join(sorted(entry.get("values") or []))
        operator = entry["operator"]
        if operator in {"In", "NotIn"}:
            parts.append(f"{entry['key']} {operator.lower()} ({values})")
        else:
            parts.append(("!" if operator == "DoesNotExist" else "") + entry["key"])
    return ",".join(parts) or "<none>"


def selector(obj: Json) -> str:
    return selector_text(obj["spec"].get("selector"))


def ratio(ready: str, wanted: str) -> Cell:
    have, want = field(ready, 0), field(wanted, 0)
    return lambda obj: f"{have(obj)}/{want(obj)}"


def job_status(obj: Json) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or []
    true = {entry["type"] for entry in conditions if entry.get("status") == "True"}
    if obj["metadata"].get("deletionTimestamp"):
        true.add("Terminating")
    order = (
        *("Complete", "Failed", "Terminating", "Suspended"),
        *("FailureTarget", "SuccessCriteriaMet"),
    )
    return next((name for name in order if name in true), "Running")


def completions(obj: Json) -> str:
    succeeded = (obj.get("status") or {}).get("succeeded", 0)
    wanted, parallelism = obj["spec"].get("completions"), obj["spec"].get("parallelism", 0)
    if wanted is not None:
        return f"{succeeded}/{wanted}"
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def job_duration(obj: Json) -> str:
    status = obj.get("status") or {}
    if not status.get("startTime"):
        return ""
    end = status.get("completionTime") or next(
        (
            c.get("lastTransitionTime")
            for c in status.get("conditions") or []
            if c["type"] == "Failed" and c["status"] == "True"
        ),
        None,
    )
    if end is None:
        return clock.age(status["startTime"])
    moment = dt.datetime.fromisoformat(end.replace("Z", "+00:00"))
    return clock.age(status["startTime"], moment)


def ports(obj: Json) -> str:
    parts = []
    for port in obj["spec"].get("ports") or []:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        parts.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(parts) or "<none>"


def external_address(obj: Json) -> str:
    spec = obj["spec"]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    if spec.get("type") == "LoadBalancer":
        found = (obj.get("status") or {}).get("loadBalancer", {}).get("ingress") or []
        return ",".join(one.get("ip") or one.get("hostname", "") for one in found) or "<pending>"
    return ",".join(spec.get("externalIPs") or []) or "<none>"


def node_status(obj: Json) -> str:
    ready = [
        "Ready" if condition["status"] == "True" else "NotReady"
        for condition in (obj.get("status") or {}).get("conditions") or []
        if condition["type"] == "Ready"
    ] or ["Unknown"]
    if obj["spec"].get("unschedulable"):
        ready.append("SchedulingDisabled")
    return ",".join(ready)


def roles(obj: Json) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    found = sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))
    return ",".join(found) or "<none>"


def node_address(kind: str) -> Cell:
    def cell(obj: Json) -> str:
        for address in (obj.get("status") or {}).get("addresses") or []:
            if address["type"] == kind:
                return str(address["address"])
        return "<none>"

    return cell


def event_age(first: bool) -> Cell:
    def cell(obj: Json) -> str:
        names = ("firstTimestamp",) if first else ("lastTimestamp", "firstTimestamp")
        times = [obj.get(name) for name in names] + [obj.get("eventTime")]
        series = (obj.get("series") or {}).get("lastObservedTime")
        times = times if first else [series, *times]
        return clock.age(next((time for time in times if time), None))

    return cell


def event_object(obj: Json) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def event_source(obj: Json) -> str:
    source = obj.get("source") or {}
    host = f", {source['host']}" if source.get("host") else ""
    return f"{source.get('component') or obj.get('reportingComponent') or ''}{host}"


def size(name: str) -> Cell:
    return lambda obj: len(obj.get(name) or {})


def data_size(obj: Json) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def role_reference(obj: Json) -> str:
    return f"{obj['roleRef']['kind']}/{obj['roleRef']['name']}"


def flag(path: str) -> Cell:
    value = field(path)
    return lambda obj: str(value(obj)).lower()


def access_modes(modes: list[str] | None) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX"}
    return ",".join(short.get(mode, mode) for mode in modes or [])


def last_schedule(obj: Json) -> str:
    last = (obj.get("status") or {}).get("lastScheduleTime")
    return clock.age(last) if last else "<none>"


def claim(obj: Json) -> str:
    reference = obj["spec"].get("claimRef")
    return f"{reference['namespace']}/{reference['name']}" if reference else ""


def quota(*, limits: bool) -> Cell:
    """Write what is used of what is allowed; limits apart from the rest."""

    def cell(obj: Json) -> str:
        status = obj.get("status") or {}
        hard = obj["spec"].get("hard") or {}
        used = status.get("used") or {}
        names = sorted(name for name in hard if name.startswith("limits.") == limits)
        return ", ".join(f"{name}: {used.get(name, 0)}/{hard[name]}" for name in names)

    return cell


def hosts(obj: Json) -> str:
    found = [rule["host"] for rule in obj["spec"].get("rules") or [] if rule.get("host")]
    return ",".join(found) or "*"
