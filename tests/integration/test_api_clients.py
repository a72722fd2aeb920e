"""The embedded API through kopf, the official Python client and Helm."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client, config, watch

Json = dict[str, Any]

OPERATOR = """
import kopf

@kopf.on.startup()
def settings(settings, **_):
    settings.posting.enabled = True

@kopf.on.create("example.dev", "v1", "widgets")
@kopf.on.update("example.dev", "v1", "widgets")
def seen(spec, patch, body, **_):
    patch.status["phase"] = "Seen " + spec["size"]
    kopf.event(body, type="Normal", reason="Seen", message="hello")

@kopf.on.delete("example.dev", "v1", "widgets")
def gone(**_):
    pass
"""
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.dev"},
    "spec": {
        "group": "example.dev",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


@pytest.fixture
async def api(api_server: Path) -> AsyncIterator[client.ApiClient]:
    """The official client, configured as any program would be."""
    await config.load_kube_config(config_file=str(api_server))
    async with client.ApiClient() as opened:
        yield opened


async def _until(found: Callable[[], Any], limit_s: float = 30) -> Any:
    """Ask again until there is an answer."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(client.ApiException):
            answer = await found()
            if answer:
                return answer
        await asyncio.sleep(0.2)
    raise TimeoutError("no answer in time")


@contextlib.contextmanager
def _operator(kubeconfig: Path, folder: Path) -> Iterator[None]:
    source = folder / "operator.py"
    source.write_text(OPERATOR)
    command = [sys.executable, "-m", "kopf", "run", "-n", "default", "--standalone", str(source)]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=15)


async def test_kopf_handles_a_custom_resource(
    api: client.ApiClient, api_server: Path, tmp_path: Path
) -> None:
    """Creation, update and deletion reach an unmodified kopf operator, which answers."""
    custom = client.CustomObjectsApi(api)
    place = {"group": "example.dev", "version": "v1", "namespace": "default", "plural": "widgets"}
    await client.ApiextensionsV1Api(api).create_custom_resource_definition(DEFINITION)

    async def phase(wanted: str) -> bool:
        obj = await custom.get_namespaced_custom_object(**place, name="w")
        return bool(obj.get("status", {}).get("phase") == wanted)

    with _operator(api_server, tmp_path):
        widget = {"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": "w"}}
        made = {**widget, "spec": {"size": "small"}}
        await custom.create_namespaced_custom_object(**place, body=made)
        await _until(lambda: phase("Seen small"))
        change = {"spec": {"size": "large"}}
        await custom.patch_namespaced_custom_object(**place, name="w", body=change)
        await _until(lambda: phase("Seen large"))
        await custom.delete_namespaced_custom_object(**place, name="w")

        async def gone() -> bool:
            listed = await custom.list_namespaced_custom_object(**place)
            return not listed["items"]

        await _until(gone)
        events = await client.CoreV1Api(api).list_namespaced_event("default")

    assert "Seen" in {event.reason for event in events.items}


async def test_official_client_lists_and_watches(api: client.ApiClient) -> None:
    """Typed objects come back, pages follow each other, a watch sees changes."""
    core = client.CoreV1Api(api)
    for name in ("a", "b", "c"):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data={"k": name})
        await core.create_namespaced_config_map("default", body)

    page = await core.list_namespaced_config_map("default", limit=2)
    rest = await core.list_namespaced_config_map("default", _continue=page.metadata._continue)
    await core.delete_namespaced_config_map("a", "default")
    async with watch.Watch().stream(
        core.list_namespaced_config_map,
        "default",
        resource_version=page.metadata.resource_version,
        timeout_seconds=2,
    ) as stream:
        seen = [(event["type"], event["object"].metadata.name) async for event in stream]

    assert [item.metadata.name for item in page.items + rest.items] == ["a", "b", "c"]
    assert seen == [("DELETED", "a")]


async def test_log_comes_from_the_nodes_kubelet(api: client.ApiClient) -> None:
    """The API asks the kubelet named by the node, with the caller's parameters."""
    core = client.CoreV1Api(api)
    asked: list[Json] = []

    async def log(request: web.Request) -> web.Response:
        asked.append({"path": request.path, **request.query})
        return web.Response(text="line\n")

    kubelet = web.Application()
    kubelet.router.add_get("/containerLogs/{namespace}/{pod}/{container}", log)
    runner = web.AppRunner(kubelet)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    meta = {"name": "n1", "annotations": {"loraland.dev/kubelet-url": url}}
    await core.create_node({"metadata": meta})
    await core.create_namespaced_service_account("default", {"metadata": {"name": "default"}})
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
    await core.create_namespaced_pod("default", {"metadata": {"name": "p"}, "spec": spec})

    text = await core.read_namespaced_pod_log("p", "default", tail_lines=3)
    await runner.cleanup()

    assert text == "line\n"
    assert asked == [{"path": "/containerLogs/default/p/c", "tailLines": "3"}]


def test_helm_installs_upgrades_and_uninstalls(api_server: Path, tmp_path: Path) -> None:
    """Helm 4, unmodified, with its release secrets in protobuf."""
    helm = pytest.importorskip("helm_python")
    helm.Chart.create("demo", tmp_path)
    releases = helm.Config(kubeconfig_path=str(api_server), namespace="default")

    releases.install(tmp_path / "demo", "demo", {"replicaCount": 1})
    releases.upgrade(tmp_path / "demo", "demo", {"replicaCount": 3})
    releases.rollback("demo")
    revisions = releases.history("demo")
    releases.uninstall("demo")

    assert [entry["revision"] for entry in revisions] == [1, 2, 3]
    assert releases.list() == []
