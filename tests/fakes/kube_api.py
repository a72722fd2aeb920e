"""A Kubernetes API server for tests of the operator, and a client of it.

Which one: that of ``LORALAND_E2E_KUBECONFIG`` (a server without controllers, which the tests play;
they work in the namespace ``default`` and remove what they made), else an etcd and kube-apiserver of
``KUBEBUILDER_ASSETS``, else the embedded one.
"""

import base64
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3
import yaml
from loraland_core import names
from loraland_local import controlplane
from servers import free_port, running

Object = dict[str, Any]
T = TypeVar("T")

KUBECONFIG_VARIABLE = "LORALAND_E2E_KUBECONFIG"
API_START_S = 60.0
PATIENCE_S = 60.0
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata"}],
}


class Answer(Exception):
    """The API server's refusal."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


@dataclass
class Api:
    """The API as an administrator, or whoever the credentials belong to."""

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
        headers = {"Content-Type": content_type}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body)
        answer = self.pool.request(method, url, body=data, headers=headers, timeout=10)
        if answer.status >= 400:
            raise Answer(answer.status, answer.data.decode(errors="replace"))
        document: Object = json.loads(answer.data)
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

    def ensure(self, path: str, obj: Object) -> None:
        """Create an object; one that is there already is fine."""
        try:
            self.call("POST", path, obj)
        except Answer as error:
            if error.status != 409:
                raise


def path_of(plural: str, name: str = "", *, sub: str = "", namespace: str = "default") -> str:
    root = {
        names.FINE_TUNE_JOBS: f"/apis/{names.API_VERSION}",
        names.ADAPTERS: f"/apis/{names.API_VERSION}",
        "jobs": "/apis/batch/v1",
        "leases": "/apis/coordination.k8s.io/v1",
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


@contextmanager
def running_api(folder: Path) -> Iterator[tuple[Api, Path]]:
    """Yield a client with all rights, and its kubeconfig, of the server that the environment names."""
    given, assets = (
        os.environ.get(KUBECONFIG_VARIABLE),
        os.environ.get(controlplane.ASSETS_VARIABLE),
    )
    with ExitStack() as stack:
        if given:
            kubeconfig = Path(given)
        elif assets:
            kubeconfig = stack.enter_context(_real_server(folder, assets))
        else:
            kubeconfig = stack.enter_context(_embedded_server(folder))
        api = connect(kubeconfig, folder)
        stack.callback(api.pool.clear)
        wait_for(lambda: _answers(api), "the API", limit_s=API_START_S)
        yield api, kubeconfig


def _answers(api: Api) -> bool:
    try:
        return api.find("/api/v1/namespaces/default") is not None
    except (Answer, urllib3.exceptions.HTTPError):
        return False


def connect(kubeconfig: Path, folder: Path) -> Api:
    """Return a client with what the kubeconfig's current context says."""
    document = yaml.safe_load(kubeconfig.read_text())
    context = next(
        c["context"] for c in document["contexts"] if c["name"] == document["current-context"]
    )
    cluster = _named(document["clusters"], context["cluster"])["cluster"]
    user = _named(document["users"], context["user"])["user"]
    options: dict[str, Any] = {"retries": False}
    if "insecure-skip-tls-verify" in cluster:
        options["cert_reqs"] = "CERT_NONE"
    elif authority := content_of(cluster, "certificate-authority"):
        options["ca_cert_data"] = authority
    for key, option in (("client-certificate", "cert_file"), ("client-key", "key_file")):
        if content := content_of(user, key):
            path = folder / f"admin.{option}"
            path.touch(mode=0o600)
            path.write_text(content)
            options[option] = str(path)
    return Api(cluster["server"], user.get("token", ""), urllib3.PoolManager(**options))


def _named(entries: list[Object], name: str) -> Object:
    return next(entry for entry in entries if entry["name"] == name)


def content_of(entry: Object, key: str) -> str:
    """Return what a kubeconfig has in itself or names the file of."""
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return Path(entry[key]).read_text() if key in entry else ""


@contextmanager
def _embedded_server(folder: Path) -> Iterator[Path]:
    state = folder / "api"
    command = [sys.executable, "-m", "loraland_local.api", "--state", str(state)]
    command += ["--token-file", str(folder / "token")]
    command += ["--audit-log-path", str(folder / "audit.log")]
    with (folder / "api.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: "ready" in (folder / "api.log").read_text(), "API", limit_s=API_START_S)
        yield state / "kubeconfig"
    finally:
        process.kill()
        process.wait(timeout=10)


@contextmanager
def _real_server(folder: Path, assets: str) -> Iterator[Path]:
    etcd, apiserver = controlplane.find_binaries(assets)
    state, host = folder / "api", "127.0.0.1"
    controlplane.write_service_account_key(state)
    token, tokens = secrets.token_urlsafe(32), state / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text(f"{token},admin,admin,system:masters\n")
    policy = state / "audit.yaml"
    policy.write_text(yaml.safe_dump(_AUDIT_POLICY))
    ports = {name: free_port() for name in ("etcd", "peer", "api")}
    store = controlplane.build_etcd_command(
        etcd, host=host, port=ports["etcd"], peer_port=ports["peer"], folder=state / "etcd"
    )
    server = controlplane.build_apiserver_command(
        apiserver, host=host, port=ports["api"], etcd_url=f"http://{host}:{ports['etcd']}",
        folder=state, tokens=tokens,
    )  # fmt: skip
    audit = [f"--audit-policy-file={policy}", f"--audit-log-path={folder / 'audit.log'}"]
    with running(store, ports["etcd"]), running([*server, *audit], ports["api"]):
        kubeconfig = state / "kubeconfig"
        kubeconfig.write_text(
            controlplane.build_kubeconfig(
                url=f"https://{host}:{ports['api']}",
                token=token,
                certificate_authority=state / "apiserver.crt",
            )
        )
        yield kubeconfig
