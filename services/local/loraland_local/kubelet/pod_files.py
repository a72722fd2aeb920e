"""The files of one pod: volumes, refreshed as their objects change, and its own kubeconfig."""

import dataclasses
import pathlib

import yaml

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import claims, projections, sources, volumes
from loraland_local.kubelet.attempt import Surroundings
from loraland_local.kubelet.context import Context, now_utc
from loraland_local.kubelet.projections import Files
from loraland_local.kubelet.sources import Token

_OWN_TOKEN = ("", 30 * 24 * 3600)
"""Audience and lifetime of the token in a pod's kubeconfig: programs read that file only once."""


@dataclasses.dataclass
class PodFiles:
    """Writes what a pod's containers find on disk."""

    context: Context
    directory: volumes.PodDirectory
    written: dict[str, Files] = dataclasses.field(default_factory=dict)
    tokens: dict[tuple[str, int], Token] = dataclasses.field(default_factory=dict)

    async def ensure(self, pod: Object) -> Surroundings:
        """Make everything; ``MissingObjectError`` while something is missing."""
        self.directory.path.mkdir(parents=True, exist_ok=True)
        self.directory.path.chmod(0o700)
        paths: dict[str, pathlib.Path] = {}
        for volume in (pod.get("spec") or {}).get("volumes") or []:
            paths[volume["name"]] = await self._ensure_volume(volume, objects.namespace(pod))
        await self.refresh(pod)
        has_token = await sources.may_mount_token(self.context.cluster, pod)
        if has_token and not self.directory.kubeconfig.exists():
            await self._write_kubeconfig(pod)
        return Surroundings(self.directory, paths, has_token)

    async def _ensure_volume(self, volume: Object, namespace: str) -> pathlib.Path:
        if projections.is_projection(volume):
            return self.directory.volume(volume["name"])
        if "persistentVolumeClaim" in volume:
            name = volume["persistentVolumeClaim"]["claimName"]
            root = self.context.claims
            return await claims.ensure_bound(self.context.cluster, root, namespace, name)
        return volumes.ensure_plain(volume, self.directory)

    async def refresh(self, pod: Object) -> None:
        """Bring files up to date with their objects and renew tokens that get old."""
        wanted = set(projections.list_tokens(pod))
        for key in wanted:
            if key not in self.tokens or self.tokens[key].renew_at <= now_utc():
                self.tokens[key] = await sources.mint(self.context.cluster, pod, *key)
        snapshot = await sources.load(
            self.context.cluster, objects.namespace(pod), projections.list_references(pod)
        )
        context = projections.Context(
            pod=pod,
            source=snapshot,
            tokens={key: self.tokens[key].text for key in wanted},
            node_allocatable=self.context.node_allocatable,
        )
        for volume in (pod.get("spec") or {}).get("volumes") or []:
            if not projections.is_projection(volume):
                continue
            files = projections.build_files(volume, context)
            name = volume["name"]
            if self.written.get(name) != files:
                volumes.write_files(self.directory.volume(name), files)
                self.written[name] = files

    async def _write_kubeconfig(self, pod: Object) -> None:
        token = await sources.mint(self.context.cluster, pod, *_OWN_TOKEN)
        cluster = self.context.cluster
        authority = self.directory.path / "ca.crt"
        authority.write_text(cluster.certificate_authority)
        server: Object = {"server": cluster.server}
        if cluster.certificate_authority:
            server["certificate-authority"] = str(authority)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "pod",
            "clusters": [{"name": "laptop", "cluster": server}],
            "users": [{"name": "pod", "user": {"token": token.text}}],
            "contexts": [
                {
                    "name": "pod",
                    "context": {
                        "cluster": "laptop",
                        "user": "pod",
                        "namespace": objects.namespace(pod),
                    },
                }
            ],
        }
        path = self.directory.kubeconfig
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document, sort_keys=False))
