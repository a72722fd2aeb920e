"""What an import is made of: a ConfigMap and a batch/v1 Job. Pure.

The pod is the trainer's image under another command. It has the namespace's credentials, so that no
namespace reads or writes what is not its own through the platform's.
"""

from typing import Any

from loraland_core import imports, names
from loraland_core.catalogue import BaseModelEntry
from loraland_core.resources import Adapter
from loraland_core.store import StoreConfig

from loraland_operator import manifests, trainer_pod

Manifest = dict[str, Any]

BACKOFF_LIMIT = 3
# For all attempts: a source that trickles ends some time.
DEADLINE_S = 2 * 3600
_DIRECTORY, _, _FILE = imports.IMPORT_FILE.rpartition("/")
_RESOURCES: Manifest = {
    "requests": {"cpu": "250m", "memory": "1Gi"},
    "limits": {"memory": "4Gi"},
}


def name(adapter: Adapter) -> str:
    """Return the name of the import from this source; another source is another import."""
    return f"{adapter.metadata.name}-im-{imports.source_hash(adapter.spec.source)[:8]}"


def build(
    adapter: Adapter, entry: BaseModelEntry, *, image: str, log_format: str, store: StoreConfig
) -> tuple[Manifest, Manifest]:
    """Return ConfigMap and Job."""
    spec = imports.ImportSpec(
        name=adapter.metadata.name,
        namespace=adapter.metadata.namespace,
        uid=adapter.metadata.uid,
        base_model=adapter.spec.base_model,
        entry=entry,
        source=adapter.spec.source,
        store=store,
    )
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(adapter),
        "data": {_FILE: spec.to_json()},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(adapter),
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "activeDeadlineSeconds": DEADLINE_S,
            "podFailurePolicy": manifests.failure_policy(),
            "template": {
                "metadata": {"labels": _labels(adapter)},
                "spec": _pod_spec(adapter, image=image, log_format=log_format),
            },
        },
    }
    return config_map, job


def _labels(adapter: Adapter) -> dict[str, str]:
    return {
        names.LABEL_PART_OF: "loraland",
        names.LABEL_MANAGED_BY: names.MANAGER_OPERATOR,
        names.LABEL_COMPONENT: "importer",
        names.LABEL_IMPORT: adapter.metadata.name,
        names.LABEL_JOB_UID: adapter.metadata.uid,
    }


def _metadata(adapter: Adapter) -> Manifest:
    return {
        "name": name(adapter),
        "namespace": adapter.metadata.namespace,
        "labels": _labels(adapter),
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.ADAPTER,
                "name": adapter.metadata.name,
                "uid": adapter.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _pod_spec(adapter: Adapter, *, image: str, log_format: str) -> Manifest:
    container: Manifest = {
        "name": trainer_pod.CONTAINER,
        "image": image,
        "args": ["import"],
        "env": _environment(adapter, log_format),
        "resources": _RESOURCES,
        "securityContext": trainer_pod.CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "import", "mountPath": _DIRECTORY, "readOnly": True},
            {"name": "cache", "mountPath": trainer_pod.CACHE_DIRECTORY},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (a mount of the pod's own)
        ],
    }
    spec: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": trainer_pod.POD_SECURITY,
        "containers": [container],
        "volumes": [
            {"name": "import", "configMap": {"name": name(adapter)}},
            {"name": "cache", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    if adapter.spec.importer.service_account_name:
        spec["serviceAccountName"] = adapter.spec.importer.service_account_name
    pvc = adapter.spec.source.pvc
    if pvc is not None:
        claim = {"claimName": pvc.claim, "readOnly": True}
        spec["volumes"].append({"name": "source", "persistentVolumeClaim": claim})
        container["volumeMounts"].append(
            {"name": "source", "mountPath": imports.SOURCE_MOUNT, "readOnly": True}
        )
    return spec


def _environment(adapter: Adapter, log_format: str) -> list[Manifest]:
    env: list[Manifest] = [{"name": "LORALAND_LOG_FORMAT", "value": log_format}]
    if adapter.spec.importer.credentials_secret_ref:
        env += trainer_pod.store_credentials(adapter.spec.importer.credentials_secret_ref.name)
    s3, hub = adapter.spec.source.s3, adapter.spec.source.hugging_face
    if s3 is not None and s3.credentials_secret_ref:
        secret = s3.credentials_secret_ref.name
        env += trainer_pod.source_credentials(secret, imports.SOURCE_ENV_PREFIX)
    if hub is not None and hub.credentials_secret_ref:
        env.append(trainer_pod.hub_token(hub.credentials_secret_ref.name))
    return env
