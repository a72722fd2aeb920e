"""The chart as parsed objects: rendered by Helm itself, from the values that a test names."""

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

CHART = Path(__file__).parents[2] / "helm" / "loraland"
NAMESPACE = "loraland-system"
Object = dict[str, Any]

# What an installation must say.
NEEDED: Object = {
    "store": {"bucket": "adapters", "existingSecret": "loraland-store"},
    "redis": {"url": "redis://redis:6379/0", "existingSecret": "loraland-redis"},
}
EVERYTHING: Object = {
    "commonLabels": {"team": "ml"},
    "commonAnnotations": {"owner": "ml@example.com"},
    "image": {"registry": "registry.example.com", "pullSecrets": ["pull"]},
    "store": {**NEEDED["store"], "prefix": "land", "endpointUrl": "https://s3.example.com"},
    "redis": {
        "url": "rediss://redis:6379/0",
        "existingSecret": "loraland-redis",
        "tls": {"caSecret": {"name": "redis-ca"}, "clientCertificateSecret": "redis-client"},
    },
    "hub": {"existingSecret": "hub"},
    "proxy": {"http": "http://proxy:3128", "https": "http://proxy:3128", "noProxy": ".svc"},
    "ca": {"configMap": "authorities"},
    "tokens": {
        "tokens": [{"sha256": "0" * 64, "tenant": "team-a", "roles": ["inference"]}],
        "defaultLimits": {"requestsPerSecond": 5},
    },
    "operator": {
        "replicas": 2,
        "strategy": {"type": "RollingUpdate"},
        "watchNamespaces": ["team-a", "team-b"],
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}},
        "extraEnv": [{"name": "A", "value": "b"}],
        "priorityClassName": "system-cluster-critical",
    },
    "inference": {
        "replicas": 2,
        "image": {
            "registry": "",
            "repository": "own/loraland/inference",
            "digest": "sha256:" + "a" * 64,
        },
        "kvMemoryMib": 1024,
        "slotMib": 512,
        "traces": {"endpoint": "http://collector:4317", "sampleRatio": 0.1},
        "tls": {
            "enabled": True,
            "certManager": {
                "enabled": True,
                "issuerRef": {"name": "ca"},
                "extraDnsNames": ["ll.example.com"],
            },
            "clientCa": {"enabled": True, "secret": "callers"},
        },
        "cache": {"kind": "persistentVolumeClaim", "persistentVolumeClaim": "weights"},
        "prefetch": {"enabled": True},
        "sharedMemory": "1Gi",
        "runtimeClassName": "nvidia",
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "inference"}},
            }
        ],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "deployments": [
            {
                "baseModel": "smollm2-135m-instruct",
                "autoscaling": {"hpa": {"enabled": True, "minReplicas": 2}},
            },
            {
                "baseModel": "second",
                "numSlots": 4,
                "autoscaling": {"keda": {"enabled": True, "minReplicas": 2}},
            },
        ],
    },
    "catalogue": {"baseModels": {"second": {"source": {"s3": "s3://models/second"}}}},
    "tenants": {"namespaces": [{"namespace": "team-a"}]},
    "networkPolicy": {
        "callers": [{"namespaceSelector": {"matchLabels": {"callers": "yes"}}}],
        "scrapers": [{"namespaceSelector": {"matchLabels": {"monitoring": "yes"}}}],
        "egress": {"enabled": True, "to": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "{{ .Release.Name }}-extra"},
        },
    ],
}
EVALUATION: Object = {
    "evaluation": {"redis": {"enabled": True}, "objectStore": {"enabled": True}},
}


def values_of(name: str) -> Object:
    """Return what a values file of the chart says."""
    found: Object = yaml.safe_load((CHART / name).read_text())
    return found


# What people install: the goldens, and whatever must hold for all of them.
CASES: dict[str, Object] = {
    "default": NEEDED,
    "local": values_of("values-local.yaml"),
    "a100": {**values_of("values-a100.yaml"), **NEEDED},
    "everything": EVERYTHING,
    "evaluation": EVALUATION,
}


@functools.cache
def _chart() -> helm.Chart:
    return helm.Chart.load(CHART)


def render(values: Object, *, name: str = "loraland") -> list[Object]:
    """Return the objects of a release in ``NAMESPACE``, hooks too."""
    return copy.deepcopy(_rendered(json.dumps(values), name))


@functools.lru_cache(maxsize=16)
def _rendered(values: str, name: str) -> list[Object]:
    files = _chart().render(json.loads(values), name=name, namespace=NAMESPACE, is_install=True)
    return [
        document
        for path, text in sorted(files.items())
        if path.endswith(".yaml")
        for document in yaml.load_all(text, Loader=yaml.CSafeLoader)
        if document
    ]


def notes(values: Object) -> str:
    return _chart().render(values, name="loraland", namespace=NAMESPACE)[
        "loraland/templates/NOTES.txt"
    ]


def find(objects: list[Object], kind: str, name: str) -> Object:
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield what would run, with whose it is."""
    for obj in objects:
        whose = f"{obj['kind']}/{obj['metadata']['name']}"
        if obj["kind"] == "Pod":
            yield whose, obj["spec"]
        elif obj["kind"] in {"Deployment", "DaemonSet", "Job", "StatefulSet"}:
            yield whose, obj["spec"]["template"]["spec"]


def containers(spec: Object) -> list[Object]:
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def environment(container: Object) -> dict[str, Any]:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container.get("env") or []}


# Generated, or held to their own source by another test.
_LEFT_OUT = {"CustomResourceDefinition", "PrometheusRule"}


def golden_text(case: str) -> str:
    """Return what a release of the case consists of, without what is random or stands elsewhere."""
    kept = []
    for obj in render(CASES[case]):
        if obj["kind"] in _LEFT_OUT or obj["metadata"]["name"].endswith("-dashboards"):
            continue
        if case == "evaluation" and obj["kind"] == "Secret":
            obj["stringData"] = dict.fromkeys(obj["stringData"], "random")
        if obj["kind"] in {"ClusterRole", "Role"} and "operator" in obj["metadata"]["name"]:
            obj["rules"] = "those of files/rbac"
        kept.append(obj)
    kept.sort(key=lambda o: (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]))
    return "---\n".join(yaml.safe_dump(obj, sort_keys=False, width=100) for obj in kept)


def golden_file(case: str) -> Path:
    return Path(__file__).parents[1] / "unit" / "chart" / "golden" / f"{case}.yaml"


if __name__ == "__main__":
    for _case in CASES:
        golden_file(_case).write_text(golden_text(_case))
