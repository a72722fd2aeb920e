"""Environment variables and arguments of a container."""

import base64
from typing import Any

import pytest
from loraland_local.kubelet import environment
from loraland_local.kubelet.environment import MissingObjectError
from loraland_local.kubelet.sources import Snapshot

Object = dict[str, Any]

POD: Object = {
    "metadata": {"name": "p", "namespace": "n", "labels": {"tier": "gold"}},
    "spec": {"nodeName": "laptop", "serviceAccountName": "runner"},
    "status": {"podIP": "127.77.1.1", "hostIP": "127.77.0.1"},
}
SOURCE = Snapshot(
    {
        ("ConfigMap", "c"): {"data": {"a": "1", "b": "2"}},
        ("Secret", "s"): {"data": {"k": base64.b64encode(b"hush").decode()}},
    }
)
LIMITS = {"limits": {"cpu": "1500m", "memory": "1Gi"}}


def build(*env: Object, env_from: list[Object] | None = None) -> dict[str, str]:
    container = {"name": "c", "env": list(env), "envFrom": env_from or [], "resources": LIMITS}
    return environment.build(
        container, POD, SOURCE, base={"HOME": "/h"}, node_allocatable={"cpu": "8"}
    )


def from_(**source: Object) -> Object:
    return {"name": "X", "valueFrom": source}


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        pytest.param({"name": "X", "value": "v"}, "v", id="value"),
        pytest.param({"name": "X"}, "", id="nothing-is-empty"),
        pytest.param({"name": "X", "value": "$(HOME)/y"}, "/h/y", id="reference"),
        pytest.param({"name": "X", "value": "$(NO)"}, "$(NO)", id="unknown-reference-stays"),
        pytest.param({"name": "X", "value": "$$(HOME)"}, "$(HOME)", id="escaped"),
        pytest.param(from_(fieldRef={"fieldPath": "metadata.name"}), "p", id="field"),
        pytest.param(from_(fieldRef={"fieldPath": "status.podIP"}), "127.77.1.1", id="pod-ip"),
        pytest.param(from_(fieldRef={"fieldPath": "status.hostIP"}), "127.77.0.1", id="host-ip"),
        pytest.param(from_(fieldRef={"fieldPath": "spec.nodeName"}), "laptop", id="node"),
        pytest.param(from_(fieldRef={"fieldPath": "metadata.labels['tier']"}), "gold", id="label"),
        pytest.param(from_(resourceFieldRef={"resource": "limits.cpu"}), "2", id="cpu-is-rounded"),
        pytest.param(
            from_(resourceFieldRef={"resource": "limits.cpu", "divisor": "1m"}), "1500", id="millis"
        ),
        pytest.param(
            from_(resourceFieldRef={"resource": "requests.memory", "divisor": "1Mi"}),
            "1024",
            id="request-falls-back-to-limit",
        ),
        pytest.param(from_(configMapKeyRef={"name": "c", "key": "a"}), "1", id="config-map"),
        pytest.param(from_(secretKeyRef={"name": "s", "key": "k"}), "hush", id="secret"),
        pytest.param(
            from_(secretKeyRef={"name": "no", "key": "k", "optional": True}), None, id="optional"
        ),
    ],
)
def test_variable_gets_its_value(variable: Object, expected: str | None) -> None:
    """Each kind of source gives its value, and an optional one that is missing gives none."""
    assert build(variable).get("X") == expected


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        pytest.param(
            from_(configMapKeyRef={"name": "no", "key": "k"}),
            'configmap "no" not found',
            id="no-config-map",
        ),
        pytest.param(
            from_(secretKeyRef={"name": "s", "key": "no"}),
            "couldn't find key no in Secret s",
            id="no-key",
        ),
    ],
)
def test_missing_source_is_named(variable: Object, message: str) -> None:
    """What is not there is named in the error."""
    with pytest.raises(MissingObjectError, match=message):
        build(variable)


def test_imports_come_first_and_later_ones_win() -> None:
    """``envFrom`` fills in with its prefix, and ``env`` has the last word."""
    imports = [{"configMapRef": {"name": "c"}}, {"prefix": "S_", "secretRef": {"name": "s"}}]
    variables = build({"name": "a", "value": "own"}, env_from=imports)

    assert variables == {"HOME": "/h", "a": "own", "b": "2", "S_k": "hush"}


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        pytest.param({}, ["run", "it"], id="entrypoint"),
        pytest.param({"args": ["-v"]}, ["run", "it", "-v"], id="arguments-follow"),
        pytest.param({"command": ["x"], "args": ["$(A)"]}, ["x", "1"], id="command-replaces"),
        pytest.param({"command": ["x", "$(B)", "$$(A)"]}, ["x", "$(B)", "$(A)"], id="escaped"),
    ],
)
def test_arguments_are_built_like_in_a_container(container: Object, expected: list[str]) -> None:
    """Command and arguments relate to the image's entrypoint as everywhere in Kubernetes."""
    assert environment.build_arguments(("run", "it"), container, {"A": "1"}) == expected
