"""The kubelet's settings. Read once, in ``main``."""

import argparse
import dataclasses
import ipaddress
import os
import pathlib
import platform
import re
import sys
from collections.abc import Mapping, Sequence

_PASSED_DOWN = ("HOME", "LANG", "TMPDIR", "TZ", "SSL_CERT_FILE", "LD_LIBRARY_PATH")


@dataclasses.dataclass(frozen=True)
class Config:
    kubeconfig: pathlib.Path | None
    state: pathlib.Path
    cache: pathlib.Path
    images: pathlib.Path
    node_name: str
    pod_network: ipaddress.IPv4Network
    host: str
    port: int
    capacity: Mapping[str, str]
    labels: Mapping[str, str]
    crash_backoff_s: float
    shutdown_grace_s: float
    base_environment: Mapping[str, str]
    log_level: str


def read(arguments: Sequence[str] | None = None) -> Config:
    found = _build_parser().parse_args(arguments)
    state = pathlib.Path(found.state).absolute()
    return Config(
        kubeconfig=pathlib.Path(found.kubeconfig) if found.kubeconfig else None,
        state=state,
        cache=pathlib.Path(found.cache_dir).absolute() if found.cache_dir else state / "cache",
        images=pathlib.Path(found.images),
        node_name=found.node_name,
        pod_network=ipaddress.IPv4Network(found.pod_cidr),
        host=found.host,
        port=found.port,
        capacity=dict(found.capacity),
        labels=dict(found.label),
        crash_backoff_s=found.crash_backoff_s,
        shutdown_grace_s=found.shutdown_grace_s,
        base_environment=_build_base_environment(os.environ),
        log_level=found.log_level.upper(),
    )


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loraland_local.kubelet",
        description="Run the pods of one node as processes of this machine.",
    )
    add = parser.add_argument
    add("--kubeconfig", default=os.environ.get("KUBECONFIG"))
    add("--state", required=True, help="directory for pods, logs and claimed volumes")
    add("--cache-dir", help="directory that containers find as LORALAND_CACHE_DIR")
    add("--images", required=True, help="JSON file: image name to local command")
    add("--node-name", default=_default_node_name())
    add("--pod-cidr", default="127.77.0.0/16", help="loopback addresses for pods")
    add("--host", default="", help="address of the kubelet's server (default: the block's first)")
    add("--port", type=int, default=0, help="port of the kubelet's server (default: a free one)")
    add(
        "--capacity",
        type=_pair,
        action="append",
        default=[],
        metavar="RESOURCE=QUANTITY",
        help="offer this much of a resource, whatever the machine has",
    )
    add("--label", type=_pair, action="append", default=[], metavar="KEY=VALUE")
    add("--crash-backoff-s", type=float, default=10.0, help="first pause in a crash loop")
    add("--shutdown-grace-s", type=float, default=4.0, help="for containers when this one ends")
    add("--log-level", default=os.environ.get("LORALAND_LOG_LEVEL", "INFO"))
    return parser


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return key, value


def _default_node_name() -> str:
    name = re.sub(r"[^a-z0-9.-]+", "-", platform.node().lower()).strip("-.")
    return name or "laptop"


def _build_base_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return all that containers get of the kubelet's environment; secrets may be in the rest."""
    binaries = str(pathlib.Path(sys.executable).parent)
    path = inherited.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    kept = {name: inherited[name] for name in _PASSED_DOWN if name in inherited}
    return {"LANG": "C.UTF-8", **kept, "PATH": f"{binaries}:{path}"}
