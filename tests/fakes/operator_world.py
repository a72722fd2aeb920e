"""A world for the operator: a real API server, S3 and Redis, and the operator as its own process.

The test itself plays controllers, kubelet, trainer and replicas: it writes what they would write.
"""

import base64
import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import boto3
import redis
import urllib3
import yaml
from loraland_core import artifacts, crds, keys, names
from loraland_core.artifacts import File, Manifest, Result
from loraland_core.store import Store, StoreConfig
from operator_objects import BASE, build_beat
from servers import S3_CREDENTIALS, free_port, redis_process, s3_process

Object = dict[str, Any]
T = TypeVar("T")

CATALOGUE = {"schemaVersion": 1, "baseModels": {BASE: {"source": {"embedded": BASE}}}}
OPERATOR = "loraland-operator"
RULES = Path(__file__).parents[2] / "helm/loraland/files/rbac"
_counter = itertools.count(1)
API_START_S = 30.0
PATIENCE_S = 30.0


class Answer(Exception):
    """The API server's refusal."""

    def __init__(self, status: int, document: Object) -> None:
        super().__init__(f"{status}: {document.get('message')}")
        self.status = status


@dataclass
class Api:
    """The API as an administrator, or whoever the token belongs to."""

    server: str
    token: str
    pool: urllib3.PoolManager

    def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        **query: str,
    ) -> Object:
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        data = None if body is None else json.dumps(body)
        answer = self.pool.request(method, url, body=data, headers=headers, timeout=10)
        document: Object = json.loads(answer.data)
        if answer.status >= 400:
            raise Answer(answer.status, document)
        return document

    def find(self, path: str) -> Object | None:
        try:
            return self.call("GET", path)
        except Answer as error:
            if error.status == 404:
                return None
            raise

    def patch(self, path: str, change: Object) -> Object:
        return self.call("PATCH", path, change, content_type="application/merge-patch+json")

    def list(self, path: str, **query: str) -> list[Object]:
        items: list[Object] = self.call("GET", path, **query)["items"]
        return items


def path_of(plural: str, name: str = "", *, sub: str = "", namespace: str = "default") -> str:
    root = {
        names.FINE_TUNE_JOBS: f"/apis/{names.API_VERSION}",
        names.ADAPTERS: f"/apis/{names.API_VERSION}",
        "jobs": "/apis/batch/v1",
    }.get(plural, "/api/v1")
    return "/".join(filter(None, (f"{root}/namespaces/{namespace}/{plural}", name, sub)))


def wait_for(look: Callable[[], T | None], what: str, *, limit_s: float = PATIENCE_S) -> T:
    """Return the first thing seen that is something."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.1)
    raise TimeoutError(f"not seen within {limit_s} s: {what}")


@dataclass
class World:
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
        code = self._operator.wait(timeout=20)
        self._operator = None
        return code

    def audit_log(self) -> list[Object]:
        """Return every request to the API so far, in order of their end."""
        lines = (self.folder / "audit.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def log(self) -> str:
        return (self.folder / "operator.log").read_text()

    def create(self, obj: Object) -> Object:
        plural = {"FineTuneJob": names.FINE_TUNE_JOBS, "Adapter": names.ADAPTERS}[obj["kind"]]
        metadata = {k: v for k, v in obj["metadata"].items() if k in ("name", "labels")}
        return self.api.call("POST", path_of(plural), {**obj, "metadata": metadata})

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

    def start_pod(self, job: Object) -> str:
        """Play Job controller and kubelet: a pod of the Job runs."""
        name = f"{job['metadata']['name']}-{next(_counter)}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {
                    **job["spec"]["template"]["metadata"]["labels"],
                    "batch.kubernetes.io/job-name": job["metadata"]["name"],
                },
            },
            "spec": {"containers": [{"name": "trainer", "image": "loraland/trainer"}]},
        }
        self.api.call("POST", path_of("pods"), pod)
        status = {"phase": "Running", "podIP": self.pod_ip, "podIPs": [{"ip": self.pod_ip}]}
        self.api.patch(path_of("pods", name, sub="status"), {"status": status})
        started = {"active": 1, "startTime": _now()}
        self.api.patch(path_of("jobs", job["metadata"]["name"], sub="status"), {"status": started})
        return name

    def complete(self, job: Object) -> None:
        """Play the Job controller after a pod that ended well."""
        conditions = [_condition("SuccessCriteriaMet"), _condition("Complete")]
        status = {
            "active": None,
            "succeeded": 1,
            "startTime": job.get("status", {}).get("startTime") or _now(),
            "completionTime": _now(),
            "conditions": conditions,
        }
        self.api.patch(path_of("jobs", job["metadata"]["name"], sub="status"), {"status": status})

    def fail(self, job: Object, pod: str, exit_code: int, message: str) -> None:
        """Play kubelet and Job controller after a pod that failed for good."""
        ended = {
            "exitCode": exit_code,
            "message": message,
            "reason": "Error",
            "startedAt": _now(),
            "finishedAt": _now(),
        }
        container = {
            "name": "trainer",
            "image": "loraland/trainer",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        self.api.patch(
            path_of("pods", pod, sub="status"),
            {"status": {"phase": "Failed", "containerStatuses": [container]}},
        )
        conditions = [
            _condition("FailureTarget", "PodFailurePolicy"),
            _condition("Failed", "PodFailurePolicy"),
        ]
        status = {"active": None, "failed": 1, "startTime": _now(), "conditions": conditions}
        self.api.patch(path_of("jobs", job["metadata"]["name"], sub="status"), {"status": status})

    def upload_artifact(self, name: str, **changes: Any) -> Manifest:
        """Play the trainer: an adapter's files, manifest last."""
        contents = {path: f"{name} {path}".encode() for path in artifacts.SERVED_FILES}
        files = [
            File(path=p, size_bytes=len(c), sha256=hashlib.sha256(c).hexdigest())
            for p, c in contents.items()
        ]
        manifest = Manifest.model_validate(
            {
                "baseModel": BASE,
                "resolvedRevision": "rev-1",
                "trainingPrecision": "nf4",
                "rank": 8,
                "alpha": 16.0,
                "targetModules": ["q_proj"],
                "dtype": "float32",
                "files": [f.model_dump(by_alias=True) for f in files],
                "createdAt": "2026-01-01T00:00:00Z",
            }
            | changes
        )
        prefix = artifacts.adapter_prefix("default", name, manifest.digest)
        for path, content in contents.items():
            self.store.write(prefix + path, content)
        self.store.write(prefix + artifacts.MANIFEST_FILE, manifest.to_json())
        return manifest

    def write_result(self, job: Object, name: str, *, gate_passed: bool = True) -> Result:
        """Play the trainer to its end: artifact and result."""
        manifest = self.upload_artifact(name)
        uid = job["metadata"]["labels"][names.LABEL_JOB_UID]
        result = Result.model_validate(
            {
                "jobUid": uid,
                "uri": self.store.uri(artifacts.adapter_prefix("default", name, manifest.digest)),
                "digest": manifest.digest,
                "sizeBytes": manifest.size_bytes,
                "metrics": [{"name": "ExactMatch", "base": 0.0, "tuned": 0.75}],
                "numEvaluated": 64,
                "gatePassed": gate_passed,
                "createdAt": "2026-01-01T00:00:00Z",
                "totalSteps": 60,
            }
        )
        self.store.write(artifacts.result_key(uid), result.to_json())
        return result

    def record(self, adapter_id: str) -> keys.AdapterRecord | None:
        data = self.redis.hget(keys.adapters(BASE), adapter_id)
        return keys.parse_adapter_record(data) if data else None

    def beat(self, replica: str = "replica-0", *, ttl_s: int = 60, **changes: Any) -> None:
        """Play a replica that has applied everything there is."""
        revisions = [
            keys.parse_adapter_record(r).revision for r in self.redis.hvals(keys.adapters(BASE))
        ]
        beat = build_beat(replica, applied=max(revisions, default=0), **changes)
        self.redis.zadd(keys.replicas(BASE), {replica: time.time()})
        self.redis.set(keys.beat(BASE, replica), beat.to_json(), ex=ttl_s)


def _condition(type_: str, reason: str = "") -> Object:
    return {
        "type": type_,
        "status": "True",
        "reason": reason,
        "message": "",
        "lastProbeTime": _now(),
        "lastTransitionTime": _now(),
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@contextmanager
def running_world(folder: Path) -> Iterator[World]:
    """Start everything but the operator; end everything with the block."""
    with ExitStack() as stack:
        s3_port, redis_port = free_port(), free_port()
        stack.enter_context(s3_process(s3_port))
        stack.enter_context(redis_process(redis_port))
        api, kubeconfig = stack.enter_context(_running_api(folder))
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
        for crd in crds.build_crds():
            api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        # Pods need it; on a cluster a controller makes it.
        api.call("POST", path_of("serviceaccounts"), {"metadata": {"name": "default"}})
        _restrict(api, kubeconfig, Path(world.environment["KUBECONFIG"]))
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


@contextmanager
def _running_api(folder: Path) -> Iterator[tuple[Api, Path]]:
    state = folder / "api"
    command = [sys.executable, "-m", "loraland_local.api", "--state", str(state)]
    command += ["--token-file", str(folder / "token")]
    command += ["--audit-log-path", str(folder / "audit.log")]
    with (folder / "api.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        kubeconfig = state / "kubeconfig"
        wait_for(lambda: "ready" in (folder / "api.log").read_text(), "API", limit_s=API_START_S)
        document = yaml.safe_load(kubeconfig.read_text())
        server = document["clusters"][0]["cluster"]
        authority = base64.b64decode(server["certificate-authority-data"]).decode()
        pool = urllib3.PoolManager(ca_cert_data=authority, retries=False)
        token = document["users"][0]["user"]["token"]
        yield Api(server["server"], token, pool), kubeconfig
        pool.clear()
    finally:
        process.kill()
        process.wait(timeout=10)


def _restrict(api: Api, admin: Path, kubeconfig: Path) -> None:
    """Write a kubeconfig of a service account that may do what the operator's rules say, no more."""
    account = path_of("serviceaccounts", OPERATOR)
    api.call("POST", path_of("serviceaccounts"), {"metadata": {"name": OPERATOR}})
    root = "/apis/rbac.authorization.k8s.io/v1"
    _grant(api, yaml.safe_load((RULES / "operator.yaml").read_text()), root)
    _grant(
        api,
        yaml.safe_load((RULES / "operator-lease.yaml").read_text()),
        f"{root}/namespaces/default",
    )
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = api.call("POST", f"{account}/token", request)["status"]["token"]
    document = yaml.safe_load(admin.read_text())
    document["users"][0]["user"] = {"token": token}
    kubeconfig.write_text(yaml.safe_dump(document))


def _grant(api: Api, role: Object, path: str) -> None:
    api.call("POST", f"{path}/{role['kind'].lower()}s", role)
    reference = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": role["kind"],
        "name": role["metadata"]["name"],
    }
    subject = {"kind": "ServiceAccount", "name": OPERATOR, "namespace": "default"}
    binding = {
        "metadata": {"name": role["metadata"]["name"]},
        "roleRef": reference,
        "subjects": [subject],
    }
    api.call("POST", f"{path}/{role['kind'].lower()}bindings", binding)


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
