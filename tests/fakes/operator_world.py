"""A world for the operator: a real API server, S3 and Redis, and the operator as its own process.

The test itself plays controllers, kubelet, trainer and replicas: it writes what they would write.
"""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import operator_access
import pytest
import redis
import yaml
from kube_api import Answer, Api, Object, path_of, running_api, wait_for
from loraland_core import crds, names
from loraland_core.store import Store, StoreConfig
from operator_objects import BASE
from played_parties import PlayedParties
from servers import S3_CREDENTIALS, free_port, redis_process, s3_process

__all__ = ["Answer", "World", "path_of", "running_world", "wait_for"]

CATALOGUE = {"schemaVersion": 1, "baseModels": {BASE: {"source": {"embedded": BASE}}}}
_counter = itertools.count(1)


@dataclass
class World(PlayedParties):
    """Everything around the operator, and the operator."""

    folder: Path
    api: Api
    kubeconfig: Path
    store: Store
    redis_port: int
    redis: Any
    pod_ip: str
    environment: dict[str, str]
    progress: Object = field(default_factory=dict)
    _operator: "subprocess.Popen[bytes] | None" = None

    def start_operator(self) -> None:
        log = (self.folder / "operator.log").open("ab")
        self._operator = subprocess.Popen(
            [sys.executable, "-m", "loraland_operator"],
            env=self.environment,
            stdout=log,
            stderr=log,
        )
        log.close()

    @contextmanager
    def kept_operator(self) -> Iterator[None]:
        """Start it, and again whenever it ends, as the kubelet would."""
        is_over = threading.Event()

        def keep() -> None:
            while not is_over.wait(0.1):
                if self._operator is None or self._operator.poll() is not None:
                    self.start_operator()

        keeper = threading.Thread(target=keep)
        keeper.start()
        try:
            yield
        finally:
            is_over.set()
            keeper.join()
            self.kill_operator()

    def kill_operator(self) -> None:
        """End it as a power cut would."""
        if self._operator is not None:
            self._operator.kill()
            self._operator.wait(timeout=10)
            self._operator = None

    def stop_operator(self) -> int:
        """End it as the kubelet would; return its exit code."""
        assert self._operator is not None
        self._operator.terminate()
        return self.wait_for_operator()

    def wait_for_operator(self) -> int:
        """Wait until it has ended; return its exit code."""
        assert self._operator is not None
        code = self._operator.wait(timeout=60)
        self._operator = None
        return code

    def audit_log(self) -> list[Object]:
        """Return every request to the API so far, in order of their end."""
        if not (self.folder / "audit.log").exists():
            pytest.skip("this API server's audit log is not ours to read")
        lines = (self.folder / "audit.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def log(self) -> str:
        return (self.folder / "operator.log").read_text()

    def create(self, obj: Object, *, namespace: str = "default") -> Object:
        plural = {"FineTuneJob": names.FINE_TUNE_JOBS, "Adapter": names.ADAPTERS}[obj["kind"]]
        metadata = {k: v for k, v in obj["metadata"].items() if k in ("name", "labels")}
        path = path_of(plural, namespace=namespace)
        return self.api.call("POST", path, {**obj, "metadata": metadata})

    def condition(self, plural: str, name: str, type_: str) -> str:
        """Return ``Status/Reason`` of a condition; empty while there is none."""
        obj = self.api.find(path_of(plural, name)) or {}
        found = obj.get("status", {}).get("conditions", [])
        return next((f"{c['status']}/{c['reason']}" for c in found if c["type"] == type_), "")

    def wait_for_condition(self, plural: str, name: str, type_: str, wanted: str) -> Object:
        try:
            wait_for(lambda: self.condition(plural, name, type_) == wanted, type_)
        except TimeoutError:
            assert self.condition(plural, name, type_) == wanted, f"{plural} {name} {type_}"
        return self.api.call("GET", path_of(plural, name))

    def delete(self, plural: str, name: str) -> None:
        self.api.call("DELETE", path_of(plural, name), propagationPolicy="Background")

    def wait_for_job(self, name: str) -> Object:
        return wait_for(lambda: self.api.find(path_of("jobs", name)), f"Job {name}")

    def events_of(self, kind: str, name: str) -> list[str]:
        """Return the reasons of an object's events, as ``kubectl describe`` orders them."""
        found = [
            e
            for e in self.api.list(path_of("events"))
            if (e["involvedObject"]["kind"], e["involvedObject"]["name"]) == (kind, name)
        ]
        found.sort(key=lambda e: (e["firstTimestamp"], e["metadata"]["name"]))
        return [e["reason"] for e in found]


@contextmanager
def running_world(folder: Path, *, namespaces: Sequence[str] = ()) -> Iterator[World]:
    """Start everything but the operator; end everything with the block.

    The operator may do what the chart's rules say: everywhere, or in the namespaces given alone.
    """
    with ExitStack() as stack:
        s3_port, redis_port = free_port(), free_port()
        stack.enter_context(s3_process(s3_port))
        stack.enter_context(redis_process(redis_port))
        api, kubeconfig = stack.enter_context(running_api(folder))
        config = StoreConfig(
            bucket="loraland", prefix="lab", endpoint_url=f"http://127.0.0.1:{s3_port}"
        )
        _create_bucket(config)
        store = Store(config, credentials=S3_CREDENTIALS)
        stack.callback(store.close)
        client = redis.Redis(port=redis_port, decode_responses=True)
        stack.callback(client.close)
        catalogue = folder / "catalogue.yaml"
        catalogue.write_text(yaml.safe_dump(CATALOGUE))
        world = World(
            folder=folder,
            api=api,
            kubeconfig=kubeconfig,
            store=store,
            redis_port=redis_port,
            redis=client,
            pod_ip=f"127.99.{os.getpid() % 250}.{next(_counter) % 250}",
            environment=_environment(folder / "operator.yaml", catalogue, config, redis_port),
        )
        stack.enter_context(_progress_server(world))
        world.environment["LORALAND_WATCH_NAMESPACES"] = ",".join(namespaces)
        _remove_what_is_ours(api)
        stack.callback(_remove_what_is_ours, api)
        for crd in crds.build_crds():
            api.ensure("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        for namespace in {"default", *namespaces}:
            api.ensure("/api/v1/namespaces", {"metadata": {"name": namespace}})
            # Pods need it; on a cluster a controller makes it.
            account = {"metadata": {"name": "default"}}
            api.ensure(path_of("serviceaccounts", namespace=namespace), account)
        operator_access.grant(
            api, kubeconfig, Path(world.environment["KUBECONFIG"]), namespaces=namespaces
        )
        (folder / "operator.log").touch()
        stack.callback(world.kill_operator)
        yield world


def _environment(
    kubeconfig: Path, catalogue: Path, store: StoreConfig, redis_port: int
) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(kubeconfig.parent),
        "KUBECONFIG": str(kubeconfig),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "LORALAND_TRAINER_IMAGE": "loraland/trainer",
        "LORALAND_STORE_BUCKET": store.bucket,
        "LORALAND_STORE_PREFIX": store.prefix,
        "LORALAND_STORE_ENDPOINT_URL": store.endpoint_url or "",
        "LORALAND_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "LORALAND_CATALOGUE": str(catalogue),
        "LORALAND_LIVENESS_PORT": str(free_port()),
        "LORALAND_METRICS_PORT": str(free_port()),
        "POD_IP": "127.0.0.1",
        "POD_NAME": "operator-0",
        "POD_NAMESPACE": "default",
        "PYTHONWARNINGS": "default",
        "LORALAND_LOG_LEVEL": "DEBUG",
    }


def _remove_what_is_ours(api: Api) -> None:
    """Empty the namespace ``default``, where the API server is not the test's own."""
    for plural in (names.ADAPTERS, names.FINE_TUNE_JOBS):
        for obj in (api.find(path_of(plural)) or {}).get("items", []):
            path = path_of(plural, obj["metadata"]["name"])
            api.patch(path, {"metadata": {"finalizers": None}})
            if api.find(path) is not None:
                api.call("DELETE", path)
    for plural in ("jobs", "pods", "events", "leases", "configmaps"):
        for obj in api.list(path_of(plural)):
            if obj["metadata"]["name"] != "kube-root-ca.crt":
                path = path_of(plural, obj["metadata"]["name"])
                api.call("DELETE", path, gracePeriodSeconds="0", propagationPolicy="Background")


def _create_bucket(config: StoreConfig) -> None:
    client: Any = boto3.session.Session().client(
        "s3", endpoint_url=config.endpoint_url, region_name="us-east-1", **S3_CREDENTIALS
    )
    client.create_bucket(Bucket=config.bucket)
    client.close()


@contextmanager
def _progress_server(world: World) -> Iterator[None]:
    """Play the training pod's port: GET /progress answers what the test set."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(world.progress).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer((world.pod_ip, 9400), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
