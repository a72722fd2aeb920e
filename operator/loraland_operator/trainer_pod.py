"""The training pod, as the template of its Job. Pure.

It runs under the restricted pod security standard, holds Secrets by reference only and has no access
to the Kubernetes API.
"""

from typing import Any

from loraland_core import jobspec, names
from loraland_core.catalogue import BaseModelEntry
from loraland_core.resources import FineTuneJob

from loraland_operator.plan import pods

Manifest = dict[str, Any]

CONTAINER = pods.TRAINER_CONTAINER
# Training saves a checkpoint when it is told to stop.
TERMINATION_GRACE_S = 120
JOB_DIRECTORY = jobspec.JOB_FILE.rsplit("/", 1)[0]
CACHE_DIRECTORY = "/var/cache/loraland"
MASTER_PORT = 29500

POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
_STORE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OPTIONAL_STORE_KEYS = ("AWS_SESSION_TOKEN",)


def config_map_name(job_name: str) -> str:
    return f"{job_name}-job"


def labels(job: FineTuneJob) -> dict[str, str]:
    """Return the labels that tell whose an object is."""
    return {
        names.LABEL_PART_OF: "loraland",
        names.LABEL_MANAGED_BY: names.MANAGER_OPERATOR,
        names.LABEL_COMPONENT: "trainer",
        names.LABEL_JOB: job.metadata.name,
        names.LABEL_JOB_UID: job.metadata.uid,
    }


def build(job: FineTuneJob, entry: BaseModelEntry, *, image: str, log_format: str) -> Manifest:
    """Return the pod template."""
    return {
        "metadata": _pod_metadata(job),
        "spec": _pod_spec(job, entry, image=image, log_format=log_format),
    }


def _pod_metadata(job: FineTuneJob) -> Manifest:
    metadata: Manifest = {"labels": {**(job.spec.pod.labels or {}), **labels(job)}}
    if job.spec.pod.annotations:
        metadata["annotations"] = job.spec.pod.annotations
    return metadata


def _pod_spec(job: FineTuneJob, entry: BaseModelEntry, *, image: str, log_format: str) -> Manifest:
    pod = job.spec.pod
    spec: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_S,
        "securityContext": POD_SECURITY,
        "containers": [_container(job, entry, image=image, log_format=log_format)],
        "volumes": _volumes(job),
    }
    optional = {
        "nodeSelector": pod.node_selector,
        "tolerations": pod.tolerations,
        "affinity": pod.affinity,
        "topologySpreadConstraints": pod.topology_spread_constraints,
        "priorityClassName": pod.priority_class_name,
        "runtimeClassName": pod.runtime_class_name,
        "serviceAccountName": pod.service_account_name,
        "imagePullSecrets": [{"name": ref.name} for ref in pod.image_pull_secrets or []],
        "subdomain": job.metadata.name if job.spec.num_nodes > 1 else None,
    }
    return spec | {key: value for key, value in optional.items() if value}


def _container(job: FineTuneJob, entry: BaseModelEntry, *, image: str, log_format: str) -> Manifest:
    return {
        "name": CONTAINER,
        "image": image,
        "env": _environment(job, log_format),
        "ports": [{"name": "progress", "containerPort": jobspec.PROGRESS_PORT, "protocol": "TCP"}],
        "resources": job.spec.pod.resources or entry.default_resources,
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(job),
    }


def _environment(job: FineTuneJob, log_format: str) -> list[Manifest]:
    spec = job.spec
    env: list[Manifest] = [{"name": "LORALAND_LOG_FORMAT", "value": log_format}]
    for name, path in (
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_IP", "status.podIP"),
        ("NODE_NAME", "spec.nodeName"),
    ):
        env.append({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    if spec.num_nodes > 1 or spec.num_proc_per_node > 1:
        env += _process_group(job)
    if spec.output.credentials_secret_ref:
        secret = spec.output.credentials_secret_ref.name
        env += store_credentials(secret)
    if spec.dataset.credentials_secret_ref:
        # One Secret may serve a bucket or the Hub, so no single key is a must.
        secret = spec.dataset.credentials_secret_ref.name
        env += source_credentials(secret, jobspec.DATASET_ENV_PREFIX)
        env.append(hub_token(secret))
    env += [v.model_dump(by_alias=True, exclude_none=True) for v in spec.pod.env or []]
    # A name may stand only once; what the job's author says comes last and holds.
    return list({variable["name"]: variable for variable in env}.values())


def _process_group(job: FineTuneJob) -> list[Manifest]:
    """Return what torchrun's processes need to find each other."""
    first = f"{job.metadata.name}-0.{job.metadata.name}" if job.spec.num_nodes > 1 else "127.0.0.1"
    values = {
        "LORALAND_NUM_NODES": job.spec.num_nodes,
        "LORALAND_NUM_PROC_PER_NODE": job.spec.num_proc_per_node,
        "MASTER_ADDR": first,
        "MASTER_PORT": MASTER_PORT,
    }
    return [{"name": name, "value": str(value)} for name, value in values.items()]


def store_credentials(secret: str) -> list[Manifest]:
    """Return the variables for writing to the platform's bucket."""
    required = [_from_secret(key, secret, key) for key in _STORE_KEYS]
    return required + [_from_secret(k, secret, k, optional=True) for k in _OPTIONAL_STORE_KEYS]


def source_credentials(secret: str, prefix: str) -> list[Manifest]:
    """Return the variables for reading from a bucket of the namespace's own."""
    return [
        _from_secret(prefix + key, secret, key, optional=True)
        for key in (*_STORE_KEYS, *_OPTIONAL_STORE_KEYS)
    ]


def hub_token(secret: str) -> Manifest:
    return _from_secret("HF_TOKEN", secret, "HF_TOKEN", optional=True)


def _from_secret(variable: str, secret: str, key: str, *, optional: bool = False) -> Manifest:
    reference: Manifest = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def _volumes(job: FineTuneJob) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "job", "configMap": {"name": config_map_name(job.metadata.name)}},
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if job.spec.pod.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": job.spec.pod.shared_memory}
        volumes.append({"name": "shared-memory", "emptyDir": memory})
    if job.spec.dataset.pvc:
        claim = {"claimName": job.spec.dataset.pvc.claim, "readOnly": True}
        volumes.append({"name": "dataset", "persistentVolumeClaim": claim})
    return volumes


def _mounts(job: FineTuneJob) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "job", "mountPath": JOB_DIRECTORY, "readOnly": True},
        {"name": "cache", "mountPath": CACHE_DIRECTORY},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (a mount of the pod's own)
    ]
    if job.spec.pod.shared_memory:
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108
    if job.spec.dataset.pvc:
        mounts.append({"name": "dataset", "mountPath": jobspec.DATASET_MOUNT, "readOnly": True})
    return mounts
