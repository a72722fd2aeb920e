"""The programs of a stack: their commands, environments and signs of readiness. Starts nothing."""

import dataclasses
import json
import os
import sys
from pathlib import Path

from loraland_core import paths

from loraland_local import controlplane, objectstore, platform, processes, redisserver
from loraland_local.addresses import Block
from loraland_local.credentials import Credentials
from loraland_local.layout import Layout, write_atomically

OBJECT_STORE = "object-store"
REDIS = "redis"
ETCD = "etcd"
API = "api"
CONTROLLERS = "controllers"
KUBELET = "kubelet"
PLATFORM = "platform"
OPERATOR = "operator"
INFERENCE = "inference"

NODE = "laptop"


@dataclasses.dataclass(frozen=True)
class Ports:
    """Where the stack's own servers listen, all on the block's first address."""

    api: int
    store: int
    redis: int
    etcd: int
    etcd_peer: int
    grpc: int
    inference_metrics: int


@dataclasses.dataclass(frozen=True)
class Program:
    """One process of the stack, started before what needs it."""

    name: str
    command: list[str]
    env: dict[str, str]
    address: str
    ready_timeout_s: float
    # A file that the program writes when it serves; else its port has to answer.
    ready_file: Path | None = None
    port: int | None = None
    grace_s: float = 5.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that was decided before the first process starts."""

    layout: Layout
    block: Block
    ports: Ports
    credentials: Credentials
    version: str
    base_model: str = platform.BASE_MODEL
    # A folder with etcd and kube-apiserver; empty for the embedded API.
    assets: str = ""

    @property
    def store_url(self) -> str:
        return f"http://{self.block.host}:{self.ports.store}"

    def redis_url(self, user: str) -> str:
        password = (
            self.credentials.operator_password
            if user == redisserver.OPERATOR_USER
            else self.credentials.replica_password
        )
        return redisserver.build_url(
            self.block.host, self.ports.redis, user=user, password=password
        )


def station_names(assets: str) -> list[str]:
    """Return the stations in the order in which they start."""
    first = [OBJECT_STORE, REDIS, *([ETCD] if assets else []), API]
    return [*first, CONTROLLERS, KUBELET, PLATFORM, OPERATOR, INFERENCE]


def build_foundation(plan: Plan) -> list[Program]:
    """Return what needs nothing else; started together."""
    return [_object_store(plan), _redis(plan), *_control_plane(plan)]


def build_nodes(plan: Plan) -> list[Program]:
    """Return what needs the API."""
    return [_controllers(plan), _kubelet(plan)]


def write_files(plan: Plan) -> None:
    """Write the files that the programs read when they start."""
    layout = plan.layout
    for folder in (layout.logs, layout.objects, layout.redis, layout.kubelet, layout.api):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(layout.images, json.dumps(build_images(plan), indent=2) + "\n")
    write_atomically(
        layout.redis / "users.acl",
        redisserver.build_access_list(
            operator_password=plan.credentials.operator_password,
            replica_password=plan.credentials.replica_password,
        ),
        mode=0o600,
    )
    if plan.assets:
        controlplane.write_service_account_key(layout.api)
        kubeconfig = controlplane.build_kubeconfig(
            url=f"https://{plan.block.host}:{plan.ports.api}",
            token=plan.credentials.api_token,
            certificate_authority=layout.api / "apiserver.crt",
        )
        write_atomically(layout.api / "kubeconfig", kubeconfig, mode=0o600)


def build_images(plan: Plan) -> dict[str, object]:
    """Return which program of this environment stands for which image."""
    threads = str(os.cpu_count() or 1)
    marked = {processes.STACK_VARIABLE: str(plan.layout.state)}
    light = {**marked, "OMP_NUM_THREADS": "1"}
    heavy = {**marked, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    # A job can wait; threads that spin would take the cores from whoever waits for an answer.
    training = {**heavy, "OMP_WAIT_POLICY": "PASSIVE"}
    # A stack's own: what is served has come through its own S3.
    serving = {**heavy, "LORALAND_ADAPTER_DIR": str(plan.layout.adapters)}
    modules = {"operator": light, "trainer": training, "inference": serving}
    images: dict[str, object] = {
        f"loraland/{name}": {
            "entrypoint": [sys.executable, "-m", f"loraland_{name}"],
            "env": env,
        }
        for name, env in modules.items()
    }
    images["busybox"] = {"entrypoint": [], "env": marked}
    images["python"] = {"entrypoint": [sys.executable], "env": marked}
    return {"images": images}


def _object_store(plan: Plan) -> Program:
    ready_file = plan.layout.logs / f"{OBJECT_STORE}.ready"
    return Program(
        name=OBJECT_STORE,
        command=[
            *_module(objectstore.__name__),
            *("--host", plan.block.host),
            *("--port", str(plan.ports.store)),
            *("--folder", str(plan.layout.objects)),
            *("--bucket", platform.BUCKET),
            *("--ready-file", str(ready_file)),
        ],
        env={},
        address=plan.store_url,
        ready_timeout_s=60,
        ready_file=ready_file,
    )


def _redis(plan: Plan) -> Program:
    return Program(
        name=REDIS,
        command=redisserver.build_command(
            host=plan.block.host,
            port=plan.ports.redis,
            folder=plan.layout.redis,
            access_list=plan.layout.redis / "users.acl",
        ),
        env={},
        address=f"{plan.block.host}:{plan.ports.redis}",
        ready_timeout_s=30,
        port=plan.ports.redis,
    )


def _control_plane(plan: Plan) -> list[Program]:
    if not plan.assets:
        return [_embedded_api(plan)]
    etcd, apiserver = controlplane.find_binaries(plan.assets)
    host, ports = plan.block.host, plan.ports
    etcd_url = f"http://{host}:{ports.etcd}"
    return [
        Program(
            name=ETCD,
            command=controlplane.build_etcd_command(
                etcd,
                host=host,
                port=ports.etcd,
                peer_port=ports.etcd_peer,
                folder=plan.layout.state / "etcd",
            ),
            env={},
            address=etcd_url,
            ready_timeout_s=30,
            port=ports.etcd,
        ),
        Program(
            name=API,
            command=controlplane.build_apiserver_command(
                apiserver,
                host=host,
                port=ports.api,
                etcd_url=etcd_url,
                folder=plan.layout.api,
                tokens=plan.layout.api_tokens,
            ),
            env={},
            address=f"https://{host}:{ports.api}",
            ready_timeout_s=60,
            port=ports.api,
        ),
    ]


def _embedded_api(plan: Plan) -> Program:
    return Program(
        name=API,
        command=[
            *_module("loraland_local.api"),
            *("--host", plan.block.host),
            *("--port", str(plan.ports.api)),
            *("--state", str(plan.layout.api)),
            *("--token-file", str(plan.layout.api_token)),
        ],
        env={},
        address=f"{plan.block.host}:{plan.ports.api}",
        ready_timeout_s=60,
        port=plan.ports.api,
    )


def _controllers(plan: Plan) -> Program:
    return Program(
        name=CONTROLLERS,
        command=_module("loraland_local.controllers"),
        env={"KUBECONFIG": str(plan.layout.kubeconfig)},
        address="",
        ready_timeout_s=60,
    )


def _kubelet(plan: Plan) -> Program:
    addresses = ["--pod-cidr", plan.block.pod_cidr] if plan.block.pod_cidr else []
    return Program(
        name=KUBELET,
        command=[
            *_module("loraland_local.kubelet"),
            *("--images", str(plan.layout.images)),
            *("--state", str(plan.layout.kubelet)),
            *("--node-name", NODE),
            *("--cache-dir", str(paths.cache_dir())),
            *("--host", plan.block.host),
            *addresses,
        ],
        env={"KUBECONFIG": str(plan.layout.kubeconfig)},
        address=plan.block.host,
        ready_timeout_s=60,
        grace_s=20.0,
    )


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]
