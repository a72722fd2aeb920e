"""What pods need from the API: their ConfigMaps and Secrets, and tokens for who they are."""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import projections

Reference = tuple[str, str]
"""Kind (ConfigMap | Secret) and name."""

_KINDS = {"ConfigMap": resources.CONFIG_MAPS, "Secret": resources.SECRETS}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Objects of one namespace at one moment."""

    found: Mapping[Reference, Object | None]

    def config_map(self, name: str) -> Object | None:
        return self.found.get(("ConfigMap", name))

    def secret(self, name: str) -> Object | None:
        return self.found.get(("Secret", name))


def list_references(pod: Object) -> set[Reference]:
    """Return every ConfigMap and Secret that the pod names."""
    found = projections.list_references(pod)
    spec = pod.get("spec") or {}
    for container in (spec.get("initContainers") or []) + spec["containers"]:
        for entry in container.get("envFrom") or []:
            if "configMapRef" in entry:
                found.add(("ConfigMap", entry["configMapRef"]["name"]))
            if "secretRef" in entry:
                found.add(("Secret", entry["secretRef"]["name"]))
        for entry in container.get("env") or []:
            value_from = entry.get("valueFrom") or {}
            if "configMapKeyRef" in value_from:
                found.add(("ConfigMap", value_from["configMapKeyRef"]["name"]))
            if "secretKeyRef" in value_from:
                found.add(("Secret", value_from["secretKeyRef"]["name"]))
    return found


async def load(cluster: Cluster, namespace: str, references: Iterable[Reference]) -> Snapshot:
    """Read the objects as they are now."""
    wanted = sorted(references)
    found = await asyncio.gather(
        *(cluster.get_or_none(_KINDS[kind], namespace, name) for kind, name in wanted)
    )
    return Snapshot(dict(zip(wanted, found, strict=True)))


@dataclasses.dataclass(frozen=True)
class Token:
    """A ServiceAccount's token and when to replace it."""

    text: str
    renew_at: dt.datetime


async def mint(cluster: Cluster, pod: Object, audience: str, expiration_s: int) -> Token:
    """Ask for a token that is bound to the pod."""
    namespace = objects.namespace(pod)
    account = pod["spec"].get("serviceAccountName") or "default"
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": [audience] if audience else [],
            "expirationSeconds": expiration_s,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": objects.name(pod),
                "uid": objects.uid(pod),
            },
        },
    }
    path = resources.SERVICE_ACCOUNTS.path(namespace, account, "token")
    answer = await cluster.call("POST", path, body=body)
    now = dt.datetime.now(tz=dt.UTC)
    expires = objects.parse_time(answer["status"].get("expirationTimestamp"))
    lifetime_s = (expires - now).total_seconds() if expires else float(expiration_s)
    return Token(answer["status"]["token"], now + dt.timedelta(seconds=0.8 * lifetime_s))


async def may_mount_token(cluster: Cluster, pod: Object) -> bool:
    """Say whether the pod wants to be somebody towards the API."""
    wish = pod["spec"].get("automountServiceAccountToken")
    if wish is not None:
        return bool(wish)
    account = pod["spec"].get("serviceAccountName") or "default"
    try:
        found = await cluster.get(resources.SERVICE_ACCOUNTS, objects.namespace(pod), account)
    except ApiError as error:
        if error.is_not_found:
            return False
        raise
    return bool(found.get("automountServiceAccountToken", True))
