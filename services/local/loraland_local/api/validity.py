"""Rules of built-in kinds that a schema cannot say: required parts, immutable fields. No I/O."""

from __future__ import annotations

import difflib
import json
from typing import Any

from . import definitions, formats
from .errors import Cause, forbidden_value, invalid_value, required_value, unsupported_value
from .kinds import ResourceType

Json = dict[str, Any]

# Fields that the schema calls required, but that a server fills in or allows to be empty.
_OPTIONAL = {
    "status",
    "metadata",
    "lastTransitionTime",
    "lastUpdateTime",
    "image",
    "imageID",
    "ready",
    "restartCount",
    "involvedObject",
}
MAX_DATA_BYTES = 2**20
_ENUMS: dict[str, tuple[str, ...]] = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "protocol": ("SCTP", "TCP", "UDP"),
    "completionMode": ("NonIndexed", "Indexed"),
    "concurrencyPolicy": ("Allow", "Forbid", "Replace"),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
}


def faults(obj: Json, resource: ResourceType) -> list[Cause]:
    """Check a whole object of a built-in kind."""
    causes = _required(obj, definitions.of_kind(resource), "")
    spec: Json = obj.get("spec") or {}
    if resource.kind == "Pod":
        causes += pod_faults(spec, "spec")
    elif "template" in spec and resource.kind != "PodTemplate":
        template = spec["template"].get("spec") or {}
        causes += pod_faults(template, "spec.template.spec")
        causes += _workload_faults(obj, resource, template)
    elif resource.kind in {"ConfigMap", "Secret"}:
        causes += _data_faults(obj, resource)
    return causes


def _required(value: Any, reference: Json, path: str) -> list[Cause]:
    """Find what a schema requires, by name."""
    schema = definitions.resolve(reference)
    causes = []
    if isinstance(value, dict):
        for key in schema.get("required") or []:
            if value.get(key) in (None, "", []) and key not in _OPTIONAL:
                field = definitions.child(schema, key) or {}
                is_list = definitions.resolve(field).get("type") == "array"
                if key not in value or value[key] is None or (is_list and not value[key]):
                    causes.append(required_value(f"{path}.{key}" if path else key))
        for key, entry in value.items():
            if isinstance(entry, dict | list) and key != "status":
                inner = definitions.child(schema, key)
                if inner is not None and inner is not definitions.ANYTHING:
                    causes += _required(entry, inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        item = definitions.items(schema)
        for index, entry in enumerate(value):
            causes += _required(entry, item, f"{path}[{index}]")
    return causes


def pod_faults(spec: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    names: set[str] = set()
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or []):
            where = f"{path}.{kind}[{index}]"
            causes += _container_faults(container, where, volumes)
            name = container.get("name", "")
            if name in names:
                text = f'Duplicate value: "{name}"'
                causes.append(Cause("FieldValueDuplicate", text, f"{where}.name"))
            names.add(name)
    causes += _enum_faults(spec, path, ("restartPolicy",))
    return causes


def _container_faults(container: Json, path: str, volumes: set[Any]) -> list[Cause]:
    causes = []
    name = container.get("name", "")
    if name and formats.label_fault(name):
        causes.append(invalid_value(f"{path}.name", f'"{name}"', str(formats.label_fault(name))))
    if not container.get("image"):
        causes.append(required_value(f"{path}.image"))
    for index, mount in enumerate(container.get("volumeMounts") or []):
        if mount.get("name") not in volumes:
            where = f"{path}.volumeMounts[{index}].name"
            text = f'Not found: "{mount.get("name")}"'
            causes.append(Cause("FieldValueNotFound", text, where))
    for index, port in enumerate(container.get("ports") or []):
        where = f"{path}.ports[{index}]"
        causes += _enum_faults(port, where, ("protocol",))
        number = port.get("containerPort", 0)
        if not 0 < number < 65536:
            why = "must be between 1 and 65535, inclusive"
            causes.append(invalid_value(f"{where}.containerPort", str(number), why))
    return causes + _enum_faults(container, path, ("imagePullPolicy", "terminationMessagePolicy"))


def _enum_faults(value: Json, path: str, names: tuple[str, ...]) -> list[Cause]:
    return [
        unsupported_value(f"{path}.{name}", f'"{value[name]}"', _ENUMS[name])
        for name in names
        if value.get(name) and value[name] not in _ENUMS[name]
    ]


def _workload_faults(obj: Json, resource: ResourceType, template: Json) -> list[Cause]:
    spec = obj["spec"]
    causes = []
    path = "spec.template.spec.restartPolicy"
    policy = template.get("restartPolicy")
    if resource.kind == "Job":
        if policy not in {"OnFailure", "Never"}:
            why = f'"{policy}"'
            causes.append(unsupported_value(path, why, ("OnFailure", "Never")))
        causes += _enum_faults(spec, "spec", ("completionMode",))
        if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
            why = "when completion mode is Indexed"
            causes.append(required_value("spec.completions", why))
        if spec.get("podFailurePolicy") and policy != "Never":
            why = 'only "Never" is supported when podFailurePolicy is specified'
            causes.append(invalid_value(path, f'"{policy}"', why))
    elif policy != "Always" and resource.kind in {"Deployment", "ReplicaSet", "StatefulSet"}:
        causes.append(unsupported_value(path, f'"{policy}"', ("Always",)))
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate" and strategy.get("rollingUpdate") is not None:
        why = "may not be specified when strategy `type` is 'Recreate'"
        causes.append(forbidden_value("spec.strategy.rollingUpdate", why))
    for name in ("replicas", "parallelism", "completions", "backoffLimit"):
        number = spec.get(name)
        if isinstance(number, int) and number < 0:
            why = "must be greater than or equal to 0"
            causes.append(invalid_value(f"spec.{name}", str(number), why))
    wanted = (spec.get("selector") or {}).get("matchLabels")
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if wanted and resource.kind != "Job" and not wanted.items() <= labels.items():
        value = json.dumps(labels, separators=(",", ":"), sort_keys=True)
        why = "`selector` does not match template `labels`"
        causes.append(invalid_value("spec.template.metadata.labels", value, why))
    return causes


def _data_faults(obj: Json, resource: ResourceType) -> list[Cause]:
    causes = []
    values = [*(obj.get("data") or {}).values(), *(obj.get("binaryData") or {}).values()]
    if sum(len(value) for value in values) > MAX_DATA_BYTES:
        message = f"Too long: may not be more than {MAX_DATA_BYTES} bytes"
        causes.append(Cause("FieldValueTooLong", message, ""))
    for key, value in (obj.get("data") or {}).items():
        if resource.kind == "Secret" and not formats.is_valid("byte", value):
            causes.append(invalid_value(f"data[{key}]", '"..."', "must be base64"))
        if not key or not all(letter.isalnum() or letter in "-_." for letter in key):
            why = (
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g."
                " 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is"
                " '[-._a-zA-Z0-9]+')"
            )
            causes.append(invalid_value(f"data[{key}]", f'"{key}"', why))
    return causes


_IMMUTABLE: dict[str, tuple[str, ...]] = {
    "Job": ("completions", "completionMode", "selector", "podFailurePolicy", "manualSelector"),
    "Deployment": ("selector",),
    "ReplicaSet": ("selector",),
    "DaemonSet": ("selector",),
}


def update_faults(new: Json, old: Json, resource: ResourceType, subresource: str) -> list[Cause]:
    if subresource == "status":
        return job_status_faults(new, old) if resource.kind == "Job" else []
    causes = faults(new, resource)
    if resource.kind == "Pod":
        causes += _pod_update_faults(new["spec"], old["spec"])
    for name in _IMMUTABLE.get(resource.kind, ()):
        if new["spec"].get(name) != old["spec"].get(name):
            value = json.dumps(new["spec"].get(name), separators=(",", ":"))
            causes.append(invalid_value(f"spec.{name}", value, "field is immutable"))
    if resource.kind == "Job" and not (new["spec"].get("suspend") or old["spec"].get("suspend")):
        causes += _changed(new["spec"], old["spec"], "template", "spec.template", "{...}")
    if resource.kind in {"RoleBinding", "ClusterRoleBinding"} and new["roleRef"] != old["roleRef"]:
        value = json.dumps(new["roleRef"], separators=(",", ":"))
        causes.append(invalid_value("roleRef", value, "cannot change roleRef"))
    if resource.kind in {"ConfigMap", "Secret"}:
        if old.get("immutable") and (new.get("data"), True) != (
            old.get("data"),
            new.get("immutable"),
        ):
            causes.append(forbidden_value("data", "field is immutable when `immutable` is set"))
        causes += _changed(new, old, "type", "type", f'"{new.get("type")}"')
    return causes


def _changed(new: Json, old: Json, key: str, path: str, value: str) -> list[Cause]:
    if new.get(key) == old.get(key):
        return []
    return [invalid_value(path, value, "field is immutable")]


_POD_MUTABLE = ("activeDeadlineSeconds", "tolerations", "schedulingGates")


def _comparable(spec: Json) -> Json:
    spec = {key: value for key, value in spec.items() if key not in _POD_MUTABLE}
    for kind in ("containers", "initContainers"):
        if spec.get(kind):
            spec[kind] = [{**container, "image": ""} for container in spec[kind]]
    return spec


def _pod_update_faults(new: Json, old: Json) -> list[Cause]:
    before, after = _comparable(old), _comparable(new)
    if before == after:
        return []
    lines = difflib.unified_diff(
        json.dumps(before, indent=1, sort_keys=True).splitlines(),
        json.dumps(after, indent=1, sort_keys=True).splitlines(),
        lineterm="",
        n=3,
    )
    shown = "\n".join(list(lines)[2:])
    why = (
        "pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only"
        " additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be"
        f" set to 1 if it was previously negative)\n{shown}\n"
    )
    return [forbidden_value("spec", why)]


def _is_true(conditions: list[Json], name: str) -> bool:
    return any(c.get("type") == name and c.get("status") == "True" for c in conditions)


def job_status_faults(new: Json, old: Json) -> list[Cause]:
    """Check what a job's status claims against itself."""
    status, before = new.get("status") or {}, old.get("status") or {}
    conditions, had = status.get("conditions") or [], before.get("conditions") or []
    complete, failed = _is_true(conditions, "Complete"), _is_true(conditions, "Failed")
    causes = []
    if complete and not status.get("completionTime"):
        why = "completionTime is required for Complete jobs"
        causes.append(required_value("status.completionTime", why))
    if status.get("completionTime") and not complete:
        why = "completionTime cannot be set for non-complete jobs"
        value = f'"{status["completionTime"]}"'
        causes.append(invalid_value("status.completionTime", value, why))
    for name, needed in (("Complete", "SuccessCriteriaMet"), ("Failed", "FailureTarget")):
        sets = _is_true(conditions, name) and not _is_true(had, name)
        if sets and not _is_true(conditions, needed):
            text = f"cannot set {name}=True condition without the {needed}=true condition"
            causes.append(Cause("FieldValueInvalid", f"Invalid value: {text}", "status.conditions"))
    if complete and failed:
        text = "Invalid value: cannot set Complete=True and Failed=true conditions"
        causes.append(Cause("FieldValueInvalid", text, "status.conditions"))
    if (complete or failed) and not status.get("startTime"):
        causes.append(required_value("status.startTime", "startTime is required for finished job"))
    if (complete or failed) and status.get("active"):
        why = "active>0 is invalid for finished job"
        causes.append(invalid_value("status.active", str(status["active"]), why))
    if (_is_true(had, "Complete") and not complete) or (_is_true(had, "Failed") and not failed):
        text = "Invalid value: cannot disable a terminal condition"
        causes.append(Cause("FieldValueInvalid", text, "status.conditions"))
    return causes
