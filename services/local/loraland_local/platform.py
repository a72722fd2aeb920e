"""The platform as Kubernetes objects: what ``loraland up`` applies. Pure, no I/O.

Nothing in them knows that it is a laptop: they could be applied to any cluster that has the images.
"""

import dataclasses
import json
from typing import Any

import yaml
from loraland_core import crds, names, redis_acl

SYSTEM_NAMESPACE = "loraland-system"
USER_NAMESPACE = "default"
BUCKET = "loraland"
BASE_MODEL = "smollm2-135m-instruct"
OPERATOR = "loraland-operator"
STORE_SECRET = "loraland-store"  # noqa: S105 (the name of a Secret)
TOKENS_SECRET = "loraland-tokens"  # noqa: S105 (the same)
REDIS_SECRET = "loraland-redis"  # noqa: S105 (the same)
CATALOGUE = "loraland-catalogue"
LABEL_BASE_MODEL = f"{names.GROUP}/base-model"

Object = dict[str, Any]

_CATALOGUE: Object = {
    "schemaVersion": 1,
    "baseModels": {
        BASE_MODEL: {
            "source": {"embedded": BASE_MODEL},
            "training": {"dtype": "float32", "qloraQuantization": "nf4"},
            # On CPUs several times as fast as NF4, at nearly the same score: docs/results.md.
            "serving": {"dtype": "float32", "quantization": "int8"},
            "limits": {"contextTokens": 2048, "maxRank": 64},
        }
    },
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What differs from one installation to another."""

    version: str
    store_url: str
    store_access_key: str
    store_secret_key: str
    operator_redis_url: str
    replica_redis_url: str
    token_sha256: str
    operator_rules: list[Object]
    lease_rules: list[Object]
    grpc_port: int
    # Where all pods share one address, the metrics of two pods may not share a port.
    inference_metrics_port: int = 9400
    num_slots: int = 8
    base_model: str = BASE_MODEL


def build_catalogue() -> Object:
    """Return the base models of the laptop."""
    return _CATALOGUE


def build_prerequisites(settings: Settings) -> list[Object]:
    """Return what has to be there before the deployments: definitions, accounts, configuration."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}},
        *crds.build_crds(),
        _service_account(OPERATOR),
        _service_account("loraland-inference"),
        *_operator_access(settings),
        _object("ConfigMap", CATALOGUE, data={"catalogue.yaml": yaml.safe_dump(_CATALOGUE)}),
        _store_secret(SYSTEM_NAMESPACE, settings),
        _store_secret(USER_NAMESPACE, settings),
        _object(
            "Secret",
            REDIS_SECRET,
            stringData={
                "operator-url": settings.operator_redis_url,
                "replica-url": settings.replica_redis_url,
            },
        ),
        _object(
            "Secret",
            TOKENS_SECRET,
            stringData={"tokens.json": _tokens(settings.token_sha256)},
        ),
    ]


def build_deployments(settings: Settings) -> list[Object]:
    return [_operator(settings), _inference(settings)]


def inference_name(base_model: str) -> str:
    return f"loraland-inference-{base_model}"


def _object(kind: str, name: str, *, namespace: str = SYSTEM_NAMESPACE, **content: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {names.LABEL_PART_OF: "loraland"},
        },
        **content,
    }


def _service_account(name: str) -> Object:
    return _object("ServiceAccount", name)


def _operator_access(settings: Settings) -> list[Object]:
    """Return what the operator may do everywhere, and where its Lease lies."""
    return [
        *_granted("ClusterRole", OPERATOR, settings.operator_rules),
        *_granted("Role", f"{OPERATOR}-lease", settings.lease_rules, namespace=SYSTEM_NAMESPACE),
    ]


def _granted(kind: str, name: str, rules: list[Object], **scope: str) -> list[Object]:
    """Return the role and its binding to the operator's service account."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": name, "labels": {names.LABEL_PART_OF: "loraland"}, **scope}
    role = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": kind, "name": name},
        "subjects": [
            {"kind": "ServiceAccount", "name": OPERATOR, "namespace": SYSTEM_NAMESPACE},
        ],
    }
    return [role, binding]


def _store_secret(namespace: str, settings: Settings) -> Object:
    return _object(
        "Secret",
        STORE_SECRET,
        namespace=namespace,
        stringData={
            "AWS_ACCESS_KEY_ID": settings.store_access_key,
            "AWS_SECRET_ACCESS_KEY": settings.store_secret_key,
        },
    )


def _tokens(token_sha256: str) -> str:
    token = {"sha256": token_sha256, "tenant": USER_NAMESPACE, "roles": ["inference", "admin"]}
    return json.dumps({"schemaVersion": 1, "tokens": [token]})


def _operator(settings: Settings) -> Object:
    container = {
        "name": "operator",
        "image": f"loraland/operator:{settings.version}",
        "env": [
            *_common_env(settings, redis_key="operator-url"),
            {"name": "LORALAND_TRAINER_IMAGE", "value": f"loraland/trainer:{settings.version}"},
        ],
        "ports": [
            {"name": "health", "containerPort": 8080},
            {"name": "metrics", "containerPort": 9090},
        ],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": 8080},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": 8080},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
        },
        "volumeMounts": [{"name": "catalogue", "mountPath": "/etc/loraland/catalogue"}],
        "securityContext": _restricted(),
    }
    # One operator at a time: two would write the registry's revisions past each other.
    return _deployment(
        OPERATOR,
        component="operator",
        strategy={"type": "Recreate"},
        container=container,
        volumes=[{"name": "catalogue", "configMap": {"name": CATALOGUE}}],
        service_account=OPERATOR,
    )


def _inference(settings: Settings) -> Object:
    container = {
        "name": "inference",
        "image": f"loraland/inference:{settings.version}",
        "env": [
            *_common_env(settings, redis_key="replica-url"),
            {"name": "LORALAND_REDIS_REGISTRY_USER", "value": redis_acl.REGISTRY},
            {"name": "LORALAND_BASE_MODEL", "value": settings.base_model},
            {"name": "LORALAND_NUM_SLOTS", "value": str(settings.num_slots)},
            {"name": "LORALAND_PORT", "value": str(settings.grpc_port)},
            {"name": "LORALAND_METRICS_PORT", "value": str(settings.inference_metrics_port)},
        ],
        "ports": [
            {"name": "grpc", "containerPort": settings.grpc_port},
            {"name": "metrics", "containerPort": settings.inference_metrics_port},
        ],
        # The first start on a machine converts the base model's weights.
        "startupProbe": _grpc_probe(settings.grpc_port, period_s=1, num_failures=600),
        "readinessProbe": _grpc_probe(settings.grpc_port, period_s=5, num_failures=3),
        "volumeMounts": [
            {"name": "catalogue", "mountPath": "/etc/loraland/catalogue"},
            {"name": "tokens", "mountPath": "/etc/loraland/tokens"},
        ],
        "securityContext": _restricted(),
    }
    return _deployment(
        inference_name(settings.base_model),
        component="inference",
        # The laptop has no memory for two copies of the base model.
        strategy={"type": "Recreate"},
        container=container,
        volumes=[
            {"name": "catalogue", "configMap": {"name": CATALOGUE}},
            {"name": "tokens", "secret": {"secretName": TOKENS_SECRET}},
        ],
        service_account="loraland-inference",
        labels={LABEL_BASE_MODEL: settings.base_model},
    )


def _grpc_probe(port: int, *, period_s: int, num_failures: int) -> Object:
    return {
        "grpc": {"port": port},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": num_failures,
    }


def _common_env(settings: Settings, *, redis_key: str) -> list[Object]:
    return [
        _from_field("POD_NAME", "metadata.name"),
        _from_field("POD_NAMESPACE", "metadata.namespace"),
        _from_field("POD_IP", "status.podIP"),
        _from_field("NODE_NAME", "spec.nodeName"),
        {"name": "LORALAND_STORE_BUCKET", "value": BUCKET},
        {"name": "LORALAND_STORE_ENDPOINT_URL", "value": settings.store_url},
        _from_secret("AWS_ACCESS_KEY_ID", STORE_SECRET, "AWS_ACCESS_KEY_ID"),
        _from_secret("AWS_SECRET_ACCESS_KEY", STORE_SECRET, "AWS_SECRET_ACCESS_KEY"),
        _from_secret("LORALAND_REDIS_URL", REDIS_SECRET, redis_key),
    ]


def _from_field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _from_secret(name: str, secret: str, key: str) -> Object:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _restricted() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _deployment(
    name: str,
    *,
    component: str,
    strategy: Object,
    container: Object,
    volumes: list[Object],
    service_account: str,
    labels: dict[str, str] | None = None,
) -> Object:
    selector = {names.LABEL_PART_OF: "loraland", names.LABEL_COMPONENT: component, **(labels or {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": selector},
        "spec": {
            "replicas": 1,
            "strategy": strategy,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": selector},
                "spec": {
                    "serviceAccountName": service_account,
                    "automountServiceAccountToken": component == "operator",
                    "terminationGracePeriodSeconds": 10,
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }
