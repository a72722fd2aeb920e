"""Files of ConfigMap, Secret, downwardAPI and projected volumes."""

import base64
from typing import Any

import pytest
from loraland_local.kubelet import projections
from loraland_local.kubelet.environment import MissingObjectError
from loraland_local.kubelet.projections import Context, File
from loraland_local.kubelet.sources import Snapshot

Object = dict[str, Any]

CONTEXT = Context(
    pod={"metadata": {"name": "p", "labels": {"b": "2", "a": '1"'}}, "spec": {"containers": []}},
    source=Snapshot(
        {
            ("ConfigMap", "c"): {"data": {"a": "A", "b": "B"}},
            ("Secret", "s"): {"data": {"k": base64.b64encode(b"hush").decode()}},
        }
    ),
    tokens={("vault", 600): "the-token"},
    node_allocatable={},
)


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        pytest.param(
            {"configMap": {"name": "c"}},
            {"a": File(b"A", 0o644), "b": File(b"B", 0o644)},
            id="config-map",
        ),
        pytest.param(
            {"configMap": {"name": "c", "items": [{"key": "a", "path": "x/y", "mode": 0o400}]}},
            {"x/y": File(b"A", 0o400)},
            id="items",
        ),
        pytest.param(
            {"secret": {"secretName": "s", "defaultMode": 0o440}},
            {"k": File(b"hush", 0o440)},
            id="secret",
        ),
        pytest.param({"secret": {"secretName": "no", "optional": True}}, {}, id="optional"),
        pytest.param(
            {
                "downwardAPI": {
                    "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
                }
            },
            {"labels": File(b'a="1\\""\nb="2"', 0o644)},
            id="downward",
        ),
        pytest.param(
            {
                "projected": {
                    "sources": [
                        {"secret": {"name": "s"}},
                        {
                            "serviceAccountToken": {
                                "path": "t",
                                "audience": "vault",
                                "expirationSeconds": 600,
                            }
                        },
                    ]
                }
            },
            {"k": File(b"hush", 0o644), "t": File(b"the-token", 0o600)},
            id="projected",
        ),
    ],
)
def test_volume_holds_its_files(volume: Object, expected: projections.Files) -> None:
    """Each kind of volume shows the files it should, with their modes."""
    assert projections.build_files(volume, CONTEXT) == expected


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        pytest.param({"configMap": {"name": "no"}}, 'configmap "no" not found', id="object"),
        pytest.param(
            {"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}},
            "references non-existent configmap key: z",
            id="key",
        ),
    ],
)
def test_missing_source_is_named(volume: Object, message: str) -> None:
    """What a volume cannot do without is named when it is missing."""
    with pytest.raises(MissingObjectError, match=message):
        projections.build_files(volume, CONTEXT)
