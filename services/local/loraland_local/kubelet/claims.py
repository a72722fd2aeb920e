"""Storage for PersistentVolumeClaims: a directory each, bound when a pod first needs it.

As a storage class with late binding and reclaim policy Delete would do it: the data go when the
claim goes.
"""

import asyncio
import pathlib
import shutil

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet.environment import MissingObjectError

_PROVISIONER = "loraland.dev/laptop"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


async def ensure_bound(
    cluster: Cluster, root: pathlib.Path, namespace: str, name: str
) -> pathlib.Path:
    """Return the claim's directory; ``MissingObjectError`` when there is no such claim."""
    claim = await cluster.get_or_none(resources.PERSISTENT_VOLUME_CLAIMS, namespace, name)
    if claim is None or objects.is_deleting(claim):
        raise MissingObjectError(f'persistentvolumeclaim "{name}" not found')
    path = root / namespace / name
    path.mkdir(parents=True, exist_ok=True)
    if (claim.get("status") or {}).get("phase") != "Bound":
        await _bind(cluster, claim, path)
    return path


async def release(cluster: Cluster, root: pathlib.Path, claim: Object) -> None:
    """Take in that a claim is gone: its volume and its data go as well."""
    volume_name = (claim.get("spec") or {}).get("volumeName")
    if not volume_name:
        return
    volume = await cluster.get_or_none(resources.PERSISTENT_VOLUMES, "", volume_name)
    if volume is None or objects.annotations(volume).get(_PROVISIONED_BY) != _PROVISIONER:
        return
    path = root / objects.namespace(claim) / objects.name(claim)
    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
    await cluster.delete(resources.PERSISTENT_VOLUMES, "", volume_name)


async def _bind(cluster: Cluster, claim: Object, path: pathlib.Path) -> None:
    spec = claim["spec"]
    capacity = {"storage": ((spec.get("resources") or {}).get("requests") or {})["storage"]}
    volume = _build_volume(claim, capacity, path)
    try:
        created = await cluster.create(resources.PERSISTENT_VOLUMES, "", volume)
    except ApiError as error:
        if not error.is_already_there:
            raise
        created = await cluster.get(resources.PERSISTENT_VOLUMES, "", objects.name(volume))
    await cluster.replace(
        resources.PERSISTENT_VOLUMES, {**created, "status": {"phase": "Bound"}}, "status"
    )
    bound = await cluster.patch(
        resources.PERSISTENT_VOLUME_CLAIMS,
        *objects.key(claim),
        {"spec": {"volumeName": objects.name(volume)}},
    )
    status = {"phase": "Bound", "accessModes": spec.get("accessModes"), "capacity": capacity}
    await cluster.replace(resources.PERSISTENT_VOLUME_CLAIMS, {**bound, "status": status}, "status")


def _build_volume(claim: Object, capacity: Object, path: pathlib.Path) -> Object:
    spec = claim["spec"]
    reference = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": objects.namespace(claim),
        "name": objects.name(claim),
        "uid": objects.uid(claim),
    }
    body: Object = {
        "capacity": capacity,
        "accessModes": spec.get("accessModes"),
        "persistentVolumeReclaimPolicy": "Delete",
        "volumeMode": "Filesystem",
        "hostPath": {"path": str(path)},
        "claimRef": reference,
    }
    if spec.get("storageClassName"):
        body["storageClassName"] = spec["storageClassName"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{objects.uid(claim)}",
            "annotations": {_PROVISIONED_BY: _PROVISIONER},
        },
        "spec": body,
    }
