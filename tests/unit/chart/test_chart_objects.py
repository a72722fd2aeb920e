"""What every rendered object owes to Kubernetes, to administrators and to our own programs."""

from pathlib import Path

import charts
import helm_python as helm
import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loraland_core import catalogue
from loraland_inference import config as inference_config
from loraland_inference.tokens import Tokens
from loraland_operator import config as operator_config

RELEASE = "1.36.0"
CRD = "CustomResourceDefinition"
FOREIGN = {"ServiceMonitor", "PrometheusRule", "Certificate", "ScaledObject"}
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}
PODS = [
    pytest.param(spec, id=f"{case}-{whose}")
    for case in charts.CASES
    for whose, spec in charts.pod_specs(charts.render(charts.CASES[case]))
]


def faults_of(objects: list[charts.Object]) -> list[str]:
    """Return what Kubernetes would not take."""
    found = []
    for obj in objects:
        if obj["kind"] in FOREIGN:
            continue
        try:
            kubernetes_validate.validate(obj, RELEASE, strict=obj["kind"] != CRD)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{obj['kind']} {obj['metadata']['name']}: {error.message}")
    return found


def restricted_faults(spec: charts.Object) -> list[str]:
    """Return what the restricted Pod Security Standard forbids, and what we ask for beside it."""
    pod = spec["securityContext"]
    wrong = {
        "volumes": any(not VOLUMES & v.keys() for v in spec["volumes"]),
        "host": any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
        "root": not (pod["runAsNonRoot"] and pod["runAsUser"] > 0),
        "seccomp": pod["seccompProfile"]["type"] != "RuntimeDefault",
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    return found + [fault for c in charts.containers(spec) for fault in _container_faults(c)]


def _container_faults(container: charts.Object) -> list[str]:
    security, resources = container["securityContext"], container["resources"]
    image = container["image"].rpartition("/")[2]
    wrong = {
        "privileges": security.get("privileged") or security["allowPrivilegeEscalation"],
        "capabilities": security["capabilities"] != {"drop": ["ALL"]},
        "writable root": not security["readOnlyRootFilesystem"],
        "host port": any("hostPort" in port for port in container.get("ports") or []),
        "no limit": "memory" not in resources["limits"],
        "no requests": not {"cpu", "memory"} <= resources["requests"].keys(),
        "image": image.endswith(":latest") or not set(":@") & set(image),
    }
    return [f"{container['name']}: {name}" for name, is_wrong in wrong.items() if is_wrong]


@pytest.mark.parametrize("case", charts.CASES)
def test_objects_satisfy_the_schemas_of_kubernetes(case: str) -> None:
    """No field is misspelt, misplaced or of the wrong type."""
    assert faults_of(charts.render(charts.CASES[case])) == []


@pytest.mark.parametrize("spec", PODS)
def test_pods_are_restricted_and_bounded(spec: charts.Object) -> None:
    """An administrator's policies find nothing in any pod."""
    assert restricted_faults(spec) == []


@pytest.mark.parametrize("case", charts.CASES)
def test_only_the_operator_has_a_token_of_the_api(case: str) -> None:
    """What cannot be stolen from a pod cannot be misused."""
    with_token = {
        whose.partition("/")[2].rpartition("-")[2]
        for whose, spec in charts.pod_specs(charts.render(charts.CASES[case]))
        if spec["automountServiceAccountToken"]
    }
    assert {"operator", "release"} == with_token


@pytest.mark.parametrize("case", charts.CASES)
def test_long_running_containers_have_probes(case: str) -> None:
    """Whatever is to run for ever can be seen to."""
    objects = [o for o in charts.render(charts.CASES[case]) if o["kind"] == "Deployment"]

    for _, spec in charts.pod_specs(objects):
        for container in spec["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= container.keys()


@pytest.mark.parametrize("case", charts.CASES)
def test_volumes_and_mounts_fit_together(case: str) -> None:
    """Each mount has its volume, each volume is mounted, and no path is taken twice."""
    for _, spec in charts.pod_specs(charts.render(charts.CASES[case])):
        volumes = [volume["name"] for volume in spec["volumes"]]
        mounts = [m for c in charts.containers(spec) for m in c.get("volumeMounts") or []]
        assert len(volumes) == len(set(volumes))
        assert {m["name"] for m in mounts} == set(volumes)
        for container in charts.containers(spec):
            paths = [m["mountPath"] for m in container.get("volumeMounts") or []]
            assert len(paths) == len(set(paths))
            names = [entry["name"] for entry in container.get("env") or []]
            assert len(names) == len(set(names))


def literal(container: charts.Object) -> dict[str, str]:
    """Return the environment as a process sees it; what comes from elsewhere is made up."""
    return {
        name: value if isinstance(value, str) else "x"
        for name, value in charts.environment(container).items()
    }


@pytest.mark.parametrize("case", charts.CASES)
def test_programs_understand_the_settings(case: str, tmp_path: Path) -> None:
    """Operator and replicas read from the pods' environment what the values say."""
    objects = charts.render(charts.CASES[case])
    file = tmp_path / "catalogue.yaml"
    file.write_text(
        charts.find(objects, "ConfigMap", "loraland-catalogue")["data"]["catalogue.yaml"]
    )
    known = catalogue.load(file).base_models

    for obj in (o for o in objects if o["kind"] == "Deployment"):
        container = obj["spec"]["template"]["spec"]["containers"][0]
        environ = {**literal(container), "LORALAND_CATALOGUE": str(file)}
        if environ.get("LORALAND_REDIS_URL") == "x":
            environ["LORALAND_REDIS_URL"] = "redis://redis:6379/0"
        if container["name"] == "operator":
            assert operator_config.read(environ).trainer_image.partition(":")[0]
        elif container["name"] == "inference":
            assert inference_config.read(environ).base_model in known


@pytest.mark.parametrize("case", ["default", "everything"])
def test_tokens_of_the_values_are_read_by_replicas(case: str, tmp_path: Path) -> None:
    """The Secret that the chart writes is a tokens file, with and without entries."""
    secret = charts.find(charts.render(charts.CASES[case]), "Secret", "loraland-tokens")
    file = tmp_path / "tokens.json"
    file.write_text(secret["stringData"]["tokens.json"])
    readings: list[tuple[bool, frozenset[str]]] = []

    Tokens(file, lambda *reading: readings.append(reading)).refresh()

    assert [(True, frozenset({"team-a"} if case == "everything" else set()))] == readings


def on(path: str) -> charts.Object:
    *outer, last = path.split(".")
    values: charts.Object = {last: True}
    for key in reversed(outer):
        values = {key: values}
    return values


def merged(*parts: charts.Object) -> charts.Object:
    found: charts.Object = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = merged(found[key], value) if both else value
    return found


SWITCHES = (
    *("inference.autoscaling.hpa.enabled", "inference.autoscaling.keda.enabled"),
    *("inference.tls.clientCa.enabled", "inference.prefetch.enabled"),
    *("evaluation.redis.enabled", "evaluation.objectStore.enabled"),
    *("monitoring.serviceMonitor.enabled", "monitoring.prometheusRule.enabled"),
    "monitoring.dashboards.enabled",
)
CHOICES = st.fixed_dictionaries(
    {
        "replicas": st.integers(0, 3),
        "packed": st.fixed_dictionaries({"enabled": st.booleans()}),
        "cache": st.sampled_from(
            [
                {"kind": "emptyDir"},
                {"kind": "persistentVolumeClaim"},
                {"kind": "persistentVolumeClaim", "persistentVolumeClaim": "mine"},
            ]
        ),
        "tls": st.sampled_from([{}, {"enabled": True, "existingSecret": "tls"}]),
        "sharedMemory": st.sampled_from(["", "1Gi"]),
    }
)


@settings(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(SWITCHES)), CHOICES, st.sampled_from([[], ["a"], ["a", "b"]]))
def test_any_combination_is_installable_or_refused_in_a_sentence(
    switches: set[str], inference: charts.Object, namespaces: list[str]
) -> None:
    """Whatever is switched on together, the objects are valid and the pods restricted."""
    values = merged(
        charts.NEEDED,
        {"inference": inference, "operator": {"watchNamespaces": namespaces}},
        *map(on, sorted(switches)),
    )

    try:
        objects = charts.render(values)
    except helm.HelmRenderError as error:
        if "exclude each other" in str(error) or "outlives its pod" in str(error):
            return
        raise

    assert faults_of(objects) == []
    assert [f for _, spec in charts.pod_specs(objects) for f in restricted_faults(spec)] == []
