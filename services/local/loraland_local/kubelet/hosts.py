"""Addresses in place of names: there is no DNS here through which pods of a Service find each other.

A variable that is another pod's name below its headless Service, ``<hostname>.<subdomain>``, becomes
that pod's address. On a cluster the name itself resolves.
"""

from collections.abc import Mapping

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet.environment import MissingObjectError

_ENDED = ("Succeeded", "Failed")


async def resolve(variables: Mapping[str, str], pod: Object, cluster: Cluster) -> dict[str, str]:
    """Return the variables; ``MissingObjectError`` while a named pod has no address yet."""
    subdomain = pod["spec"].get("subdomain")
    named = {k: v for k, v in variables.items() if subdomain and v.endswith(f".{subdomain}")}
    if not named:
        return dict(variables)
    found, _ = await cluster.list(resources.PODS)
    near = [p for p in found if objects.namespace(p) == objects.namespace(pod)]
    return {**variables, **{key: _address(name, near) for key, name in named.items()}}


def _address(name: str, pods: list[Object]) -> str:
    hostname, _, subdomain = name.partition(".")
    for pod in pods:
        spec, status = pod["spec"], pod.get("status") or {}
        is_meant = (spec.get("hostname"), spec.get("subdomain")) == (hostname, subdomain)
        if is_meant and status.get("phase") not in _ENDED and status.get("podIP"):
            return str(status["podIP"])
    raise MissingObjectError(f'pod "{name}" has no address yet')
