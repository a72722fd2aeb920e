"""CRDs built from the resource models: pydantic's JSON schema made structural. No I/O."""

import sys
from pathlib import Path
from typing import Any

import yaml

from loraland_core import names
from loraland_core.resources import Adapter, FineTuneJob
from loraland_core.resources.common import Model

_NAME_RULE = {
    "rule": f"size(self.metadata.name) <= {names.MAX_NAME_LENGTH}"
    " && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "message": "metadata.name must be a lowercase DNS label (RFC 1035) of at most"
    f" {names.MAX_NAME_LENGTH} characters: child objects are named after it",
}
# Keywords that a structural schema does not know, or that say nothing to the API server.
_DROPPED = ("title", "additionalProperties", "const", "$defs")


def build_crds() -> list[dict[str, Any]]:
    """Return the CRDs of all custom resources, ready to apply."""
    return [
        _build_crd(
            FineTuneJob,
            plural=names.FINE_TUNE_JOBS,
            short_name="ftj",
            description="A training run that ends in an adapter.",
            columns=[
                _column("Model", ".spec.baseModel"),
                _column("Method", ".spec.method", priority=1),
                _column("Phase", ".status.phase"),
                _column("Progress", ".status.progress.percent", kind="integer"),
                _column("Loss", ".status.progress.loss"),
                _column("ETA", ".status.progress.etaSeconds", kind="integer", priority=1),
                _column("Adapter", ".status.adapterRef.name"),
                _column("Reason", ".status.reason", priority=1),
                _column("Queue", ".spec.queueName", priority=1),
                _column("Age", ".metadata.creationTimestamp", kind="date"),
            ],
        ),
        _build_crd(
            Adapter,
            plural=names.ADAPTERS,
            short_name="adp",
            description="A LoRA adapter that replicas of its base model serve.",
            columns=[
                _column("Base", ".spec.baseModel"),
                _column("Rank", ".status.rank", kind="integer"),
                _column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
                _column("Phase", ".status.phase"),
                _column("Replicas", ".status.replicas.ready", kind="integer"),
                _column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
                _column("Digest", ".status.digest", priority=1),
                _column("Age", ".metadata.creationTimestamp", kind="date"),
            ],
        ),
    ]


def _column(name: str, path: str, *, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if priority:
        column["priority"] = priority
    return column


def _build_crd(
    model: type[Model],
    *,
    plural: str,
    short_name: str,
    description: str,
    columns: list[dict[str, Any]],
) -> dict[str, Any]:
    schema = structural_schema(model)
    properties: dict[str, Any] = schema["properties"]
    kind = model.__name__
    root: dict[str, Any] = {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{names.API_VERSION}."},
            "kind": {"type": "string", "description": f"{kind}."},
            "metadata": {"type": "object"},
            "spec": properties["spec"],
            "status": properties["status"],
        },
        "x-kubernetes-validations": [_NAME_RULE],
    }
    root["properties"]["status"].pop("default", None)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{names.GROUP}",
            "labels": {names.LABEL_PART_OF: "loraland"},
        },
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short_name],
                "categories": ["all", "loraland"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": root},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                }
            ],
        },
    }


def structural_schema(model: type[Model]) -> dict[str, Any]:
    """Return the model's schema without references, unions or keywords that CRDs forbid."""
    document = model.model_json_schema(by_alias=True)
    return _structural(document, document.get("$defs", {}))


def _structural(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    node = _resolved(node, definitions)
    schema: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            schema[key] = {name: _structural(sub, definitions) for name, sub in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            schema[key] = _structural(value, definitions)
        elif key == "description":
            schema[key] = " ".join(value.split())
        elif key not in _DROPPED:
            schema[key] = value
    if "const" in node:
        schema["enum"] = [node["const"]]
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        schema["type"] = "object"
        schema.pop("additionalProperties", None)
    _simplify_default(schema)
    return schema


def _simplify_default(schema: dict[str, Any]) -> None:
    """Let the API server fill an object's fields from their own defaults."""
    if "default" not in schema:
        return
    if schema["default"] is None:
        del schema["default"]
    elif "properties" in schema:
        schema["default"] = {}


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Inline a reference, or the one member of a union that is not null."""
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        return _resolved({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    if "anyOf" in node:
        (member,) = [m for m in node["anyOf"] if m.get("type") != "null"]
        return _resolved({**member, **{k: v for k, v in node.items() if k != "anyOf"}}, definitions)
    return node


class _PlainDumper(yaml.SafeDumper):
    """Writes equal parts twice instead of as anchors, for people and for kubectl."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(crd: dict[str, Any]) -> str:
    """Return the CRD as it is committed."""
    text: str = yaml.dump(crd, Dumper=_PlainDumper, sort_keys=False, width=100, allow_unicode=True)
    return f"# Generated from loraland_core.resources by `make gen`. Do not edit.\n{text}"


def main(folder: Path) -> None:
    """Write each CRD to a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for crd in build_crds():
        (folder / f"{crd['spec']['names']['plural']}.yaml").write_text(to_yaml(crd))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
