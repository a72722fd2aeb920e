"""Writes the chart's ``values.schema.json`` from ``values.yaml``: `make gen` runs it.

Types are those of the default values, descriptions the comments that begin with ``# --``. What
neither can say (choices, limits, the shape of lists) stands in ``REFINED``. Unknown keys are refused
everywhere but where Kubernetes itself defines what may stand.

Longer than a module should be: two thirds of it are that table, which is read in one piece.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

ANY_MAP: Schema = {"type": "object"}
STRING_MAP: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
LABEL: Schema = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 50}
NAMESPACE: Schema = {
    "type": "string",
    "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "maxLength": 63,
}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9.]+([EPTGMK]i?|[numk])?$"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
DURATION: Schema = {"type": "string", "pattern": "^([0-9]+(h|m|s))+$"}


def _whole(least: int, most: int | None = None) -> Schema:
    found: Schema = {"type": "integer", "minimum": least}
    return found if most is None else {**found, "maximum": most}


def _optional(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _closed(properties: dict[str, Schema], *required: str) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": list(required)} if required else {}),
    }


_QUANTITIES: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number"]},
}
RESOURCES = _closed(
    {"requests": _QUANTITIES, "limits": _QUANTITIES, "claims": OBJECTS}, "requests", "limits"
)
IMAGE = _closed(
    {
        "registry": {"type": "string"},
        "repository": {"type": "string", "minLength": 1},
        "tag": {"type": "string", "pattern": r"^([\w][\w.-]{0,127})?$", "not": {"const": "latest"}},
        "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    }
)
_RATE: Schema = {"type": ["number", "null"], "exclusiveMinimum": 0}
_LIMITS = _closed(
    {
        "maxConcurrentRequests": {"type": ["integer", "null"], "minimum": 1},
        "requestsPerSecond": _RATE,
        "tokensPerSecond": _RATE,
        "burstSeconds": {"type": "number", "minimum": 1, "maximum": 3600},
    }
)
_ROLES: Schema = {"type": "array", "items": _one_of("inference", "admin")}
_CALLER: dict[str, Schema] = {
    "tenant": {"type": "string", "minLength": 1, "maxLength": 63},
    "roles": _ROLES,
    "weight": {"type": "number", "minimum": 0.01, "maximum": 100},
}
_SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_DTYPE = _one_of("float32", "bf16", "fp16")
BASE_MODEL = _closed(
    {
        "source": {
            **_closed(
                {
                    "hub": _closed(
                        {"repo": {"type": "string"}, "revision": {"type": "string"}}, "repo"
                    ),
                    "directory": {"type": "string"},
                    "s3": {"type": "string", "pattern": "^s3://"},
                    "embedded": {"type": "string"},
                }
            ),
            "minProperties": 1,
            "maxProperties": 1,
        },
        "training": _closed({"dtype": _DTYPE, "qloraQuantization": _one_of("nf4")}),
        "serving": _closed({"dtype": _DTYPE, "quantization": _one_of("none", "nf4", "int8")}),
        "limits": _closed({"contextTokens": _whole(64), "maxRank": _whole(1, 256)}),
        "defaultResources": _closed({"requests": _QUANTITIES, "limits": _QUANTITIES}),
    },
    "source",
)
TENANT = _closed(
    {
        "namespace": NAMESPACE,
        "serviceAccount": _closed(
            {"create": {"type": "boolean"}, "name": {"type": "string"}, "annotations": STRING_MAP}
        ),
        "networkPolicy": _closed({"enabled": {"type": "boolean"}}),
    },
    "namespace",
)
ROLLOUT = _closed(
    {
        "type": _one_of("Recreate", "RollingUpdate"),
        "rollingUpdate": {
            "type": ["object", "null"],
            "additionalProperties": False,
            "properties": {
                "maxSurge": {"type": ["integer", "string"]},
                "maxUnavailable": {"type": ["integer", "string"]},
            },
        },
    },
    "type",
)

# What holds at every path that ends so.
BY_NAME: dict[str, Schema] = {
    "resources": RESOURCES,
    "image": IMAGE,
    "annotations": STRING_MAP,
    "labels": STRING_MAP,
    "podLabels": STRING_MAP,
    "podAnnotations": STRING_MAP,
    "nodeSelector": STRING_MAP,
    "affinity": ANY_MAP,
    "tolerations": OBJECTS,
    "topologySpreadConstraints": OBJECTS,
    "extraEnv": OBJECTS,
    "extraArgs": STRINGS,
    "extraVolumes": OBJECTS,
    "extraVolumeMounts": OBJECTS,
    "sizeLimit": QUANTITY,
    "tmpSizeLimit": QUANTITY,
    "minReplicas": _whole(0),
    "maxReplicas": _whole(1),
    "activeDeadlineSeconds": _whole(1),
    "strategy": ROLLOUT,
    "metrics": PORT,
    "grpc": PORT,
    "port": PORT,
    "duration": DURATION,
    "renewBefore": DURATION,
    "interval": DURATION,
}
REFINED: dict[str, Schema] = {
    "commonLabels": STRING_MAP,
    "commonAnnotations": STRING_MAP,
    "image.pullPolicy": _one_of("Always", "IfNotPresent", "Never"),
    "image.pullSecrets": STRINGS,
    "images.operator": IMAGE,
    "images.inference": IMAGE,
    "images.trainer": IMAGE,
    "podSecurity.runAsUser": _whole(1),
    "podSecurity.runAsGroup": _whole(1),
    "podSecurity.fsGroup": _whole(1),
    "logs.format": _one_of("json", "text"),
    "logs.level": _one_of("DEBUG", "INFO", "WARNING", "ERROR"),
    "store.endpointUrl": {"type": "string", "pattern": "^(https?://.+)?$"},
    "redis.url": {
        "type": "string",
        "pattern": r"^(rediss?(\+sentinel|\+cluster)?://[^@]+)?$",
    },
    "redis.timeoutS": {"type": "number", "minimum": 2, "maximum": 60},
    "catalogue.baseModels": {
        "type": "object",
        "minProperties": 1,
        "propertyNames": LABEL,
        "additionalProperties": BASE_MODEL,
    },
    "tokens.tokens": {
        "type": "array",
        "items": _closed({"sha256": _SHA256, **_CALLER}, "sha256", "tenant", "roles"),
    },
    "tokens.certificates": {
        "type": "array",
        "items": _closed(
            {"uri": {"type": "string"}, "commonName": {"type": "string"}, **_CALLER}, "tenant"
        ),
    },
    "tokens.defaultLimits": _optional(_LIMITS),
    "tokens.limits": {"type": "object", "additionalProperties": _LIMITS},
    "operator.watchNamespaces": {"type": "array", "items": NAMESPACE, "uniqueItems": True},
    "operator.replicas": _whole(0),
    "operator.numWorkers": _whole(1),
    "operator.sweep.mode": _one_of("report", "remove", "off"),
    "operator.sweep.everyS": _whole(60),
    "operator.readinessPeriodS": _whole(1),
    "inference.image": _optional(IMAGE),
    "inference.replicas": _whole(0),
    "inference.numSlots": _whole(1),
    "inference.maxRunning": _whole(1),
    "inference.maxQueue": _whole(1),
    "inference.kvMemoryMib": _optional(_whole(1)),
    "inference.diskMib": _whole(1),
    "inference.hostMib": _whole(1),
    "inference.slotMib": _optional(_whole(1)),
    "inference.maxAdapterMib": _whole(1),
    "inference.concurrentFetches": _whole(1),
    "inference.engineThreads": _optional(_whole(1)),
    "inference.stepLimitS": _whole(1),
    "inference.startLimitS": _whole(1),
    "inference.drainGraceS": _whole(0),
    "inference.maxDeadlineS": _whole(1, 86_400),
    "inference.metricsTop": _whole(0, 1000),
    "inference.traces.endpoint": {"type": "string", "pattern": "^(https?://[^@]+)?$"},
    "inference.traces.sampleRatio": {"type": "number", "minimum": 0, "maximum": 1},
    "inference.service.type": _one_of("ClusterIP", "NodePort", "LoadBalancer"),
    "inference.service.loadBalancerSourceRanges": STRINGS,
    "inference.tls.certManager.extraDnsNames": STRINGS,
    "inference.cache.kind": _one_of("emptyDir", "hostPath", "persistentVolumeClaim"),
    "inference.cache.hostPath": {"type": "string", "pattern": "^/[^:]+$"},
    "inference.cache.claim.size": QUANTITY,
    "inference.cache.claim.accessModes": {
        "type": "array",
        "items": _one_of("ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"),
        "minItems": 1,
    },
    "inference.packed.sizeLimit": {"type": "string"},
    "inference.terminationGracePeriodSeconds": _whole(1),
    "inference.preStopSleepS": _whole(0),
    "inference.startupPeriodS": _whole(1),
    "inference.podDisruptionBudget.maxUnavailable": {"type": ["integer", "string"]},
    "inference.autoscaling.hpa.minReplicas": _whole(1),
    "inference.autoscaling.hpa.target": {"type": "number", "exclusiveMinimum": 0},
    "inference.autoscaling.hpa.behavior": ANY_MAP,
    "inference.autoscaling.keda.target": {"type": "number", "exclusiveMinimum": 0},
    "tenants.namespaces": {"type": "array", "items": TENANT},
    "networkPolicy.callers": OBJECTS,
    "networkPolicy.scrapers": OBJECTS,
    "networkPolicy.egress.to": OBJECTS,
    "tests.timeoutS": _whole(1),
    "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_KEY = re.compile(r"^( *)([A-Za-z][\w-]*):")


def descriptions(text: str) -> dict[str, str]:
    """Return the comment of each value, by its path."""
    found: dict[str, str] = {}
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("# ") and comment:
            comment.append(stripped.removeprefix("# "))
        elif match := _KEY.match(line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if comment:
                found[".".join(path)] = " ".join(comment)
            comment = []
        else:
            comment = []
    return found


def build(text: str) -> Schema:
    """Return the schema of these values."""
    values = yaml.safe_load(text)
    told = descriptions(text)
    root = _of_map(values, "", told)
    serving = root["properties"]["inference"]["properties"]
    own = {key: schema for key, schema in serving.items() if key != "serviceAccount"}
    entry = {key: {"$ref": f"#/properties/inference/properties/{key}"} for key in own}
    del entry["deployments"]
    serving["deployments"] = {
        "type": "array",
        "description": told["inference.deployments"],
        "items": _closed({"baseModel": LABEL, **entry}, "baseModel"),
    }
    # What Helm itself adds.
    root["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "loraland", **root}


def _of_map(values: dict[str, Any], path: str, told: dict[str, str]) -> Schema:
    inner = {
        key: _of_value(value, f"{path}.{key}" if path else key, told)
        for key, value in values.items()
    }
    return _closed(inner)


def _of_value(value: Any, path: str, told: dict[str, str]) -> Schema:
    key = path.rpartition(".")[2]
    is_branch = isinstance(value, dict) and path not in told
    if path in REFINED:
        schema = REFINED[path]
    elif key in BY_NAME and not is_branch:
        schema = BY_NAME[key]
    elif isinstance(value, dict):
        schema = _of_map(value, path, told)
    elif isinstance(value, list):
        schema = {"type": "array"}
    else:
        schema = {"type": _TYPES[type(value)]}
    return {"description": told[path], **schema} if path in told else schema


def write(chart: Path) -> str:
    return json.dumps(build((chart / "values.yaml").read_text()), indent=2) + "\n"


if __name__ == "__main__":
    _chart = Path(sys.argv[1])
    (_chart / "values.schema.json").write_text(write(_chart))
