"""How the command reaches a running stack's gRPC server."""

from loraland_core.errors import Unavailable
from loraland_local import installation, kubectl, platform, stations
from loraland_local import stack as stacks
from loraland_local.layout import Layout


def qualified(name: str, namespace: str = platform.USER_NAMESPACE) -> tuple[str, str]:
    """Split ``namespace/name``; a bare name lies in the given namespace."""
    before, slash, after = name.partition("/")
    return (before, after) if slash else (namespace, name)


def grpc_address(place: Layout) -> str:
    """Return the address of the replica that serves; ``Unavailable`` while there is none."""
    record = stacks.running_record(place)
    found = next(s for s in record.stations if s.name == stations.INFERENCE)
    if not found.address:
        raise Unavailable(f"no replica serves yet ({found.detail or found.state}); wait a little")
    return found.address


def token(place: Layout) -> str:
    return place.token.read_text().strip()


def inference_log(place: Layout, num_lines: int) -> str:
    """Return the end of the replica's log."""
    return kubectl.pod_log(
        place.kubeconfig,
        platform.SYSTEM_NAMESPACE,
        installation.selector(stations.INFERENCE),
        num_lines=num_lines,
    )
