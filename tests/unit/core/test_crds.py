"""The CRDs are structural and equal their committed files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loraland_core import crds

FOLDER = Path(__file__).parents[3] / "helm/loraland/files/crds"
FORBIDDEN = ("$ref", "$defs", "anyOf", "const", "title", "null")


@pytest.mark.parametrize("crd", crds.build_crds(), ids=lambda crd: crd["spec"]["names"]["plural"])
def test_committed_crd_equals_its_source(crd: dict[str, Any]) -> None:
    """`make gen` was run after the models changed."""
    committed = (FOLDER / f"{crd['spec']['names']['plural']}.yaml").read_text()

    assert committed == crds.to_yaml(crd)


@pytest.mark.parametrize("crd", crds.build_crds(), ids=lambda crd: crd["spec"]["names"]["plural"])
def test_schema_is_structural(crd: dict[str, Any]) -> None:
    """Every node has a type and no keyword that the API server refuses."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    wrong = [
        path
        for path, node in _nodes(schema, "")
        if "type" not in node or any(word in node for word in FORBIDDEN)
    ]

    assert wrong == []


@pytest.mark.parametrize("crd", crds.build_crds(), ids=lambda crd: crd["spec"]["names"]["plural"])
def test_spec_is_bounded(crd: dict[str, Any]) -> None:
    """Strings, lists and maps of a spec have limits."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]
    limits = {"string": ("maxLength", "enum", "pattern"), "array": ("maxItems",)}

    unbounded = [
        path
        for path, node in _nodes(spec, "spec")
        if not any(limit in node for limit in limits.get(node["type"], node))
    ]
    assert unbounded == []


@pytest.mark.parametrize("crd", crds.build_crds(), ids=lambda crd: crd["spec"]["names"]["plural"])
def test_every_field_is_explained(crd: dict[str, Any]) -> None:
    """`kubectl explain` has a sentence for each field; metadata's is Kubernetes' own."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    unexplained = [
        path
        for path, node in _nodes(schema, "")
        if not path.endswith(("[]", ".metadata")) and not node.get("description", "").endswith(".")
    ]

    assert unexplained == []


def _nodes(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from _nodes(node["items"], f"{path}[]")
