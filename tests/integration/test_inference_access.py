"""A real replica as callers reach it: by TLS and certificate, with traces, metrics and probes."""

import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import collector
import grpc
import pytest
import replicas
import servers
from authority import Authority
from gated_server import write_tokens
from loraland_client import CallFailed, Client, Tls
from loraland_core.store import Store, StoreConfig
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from replicas import Land, Replica
from waiting import until, wait_for

APP = "spiffe://land/ns/default/sa/app"
SECRET = "a-token-that-nobody-may-read"
SHORT: dict[str, Any] = {"max_tokens": 8, "ignore_eos": True}


@dataclass
class World:
    """A replica by TLS, and all that looks at it."""

    folder: Path
    replica: Replica
    authority: Authority
    collector: collector.Collector
    http: str

    def tls(self, authority: Authority | None = None) -> Tls:
        """Return what a caller trusts, and its certificate."""
        certificate, key = self.authority.issue(self.folder / "client", uri=APP)
        trusted = authority or self.authority
        return Tls(trusted.pem, certificate.read_bytes(), key.read_bytes())

    def client(self, token: str = "", authority: Authority | None = None) -> Client:
        tls = self.tls(authority)
        return Client(self.replica.address, token, tls=tls, max_attempts=3)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.http + path, timeout=30) as reply:  # noqa: S310 (ours)
            return str(reply.read().decode())


@pytest.fixture(scope="module")
def world(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A replica that wants certificates and sends its traces to a collector."""
    folder = tmp_path_factory.mktemp("access")
    config = StoreConfig(bucket=f"land-{uuid.uuid4().hex[:8]}", prefix="p", endpoint_url=s3_url)
    client = boto3.session.Session().client(
        "s3", endpoint_url=s3_url, region_name="us-east-1", **servers.S3_CREDENTIALS
    )
    client.create_bucket(Bucket=config.bucket)
    client.close()
    base_folder, revision = replicas.build_base(folder)
    store = Store(config, credentials=dict(servers.S3_CREDENTIALS))
    redis_port, metrics_port = servers.free_port(), servers.free_port()
    land = Land(folder, store, f"redis://127.0.0.1:{redis_port}/0", base_folder, revision)
    authority = Authority()
    with ExitStack() as stack:
        stack.callback(store.close)
        stack.enter_context(servers.redis_process(redis_port))
        land.add("default/one", seed=1)
        land.complete()
        collected = stack.enter_context(collector.collecting())
        settings = _settings(folder, authority, collected) | {
            "LORALAND_METRICS_PORT": str(metrics_port)
        }
        replica = stack.enter_context(replicas.running(land, config, **settings))
        wait_for(land.is_applied)
        http = f"http://127.0.0.1:{metrics_port}"
        yield World(folder, replica, authority, collected, http)


def write_callers(folder: Path, *, has_certificate: bool) -> Path:
    path = folder / "callers.json"
    certificates = [{"uri": APP, "tenant": "default"}] if has_certificate else []
    write_tokens(path, {SECRET: ("default", ["inference"])}, certificates=certificates)
    return path


@pytest.fixture
def restored(world: World) -> Iterator[World]:
    """The world, put right again after a test that changes its files."""
    yield world
    world.authority.issue(world.folder / "tls")
    write_callers(world.folder, has_certificate=True)


def _settings(folder: Path, authority: Authority, collected: collector.Collector) -> dict[str, str]:
    certificate, key = authority.issue(folder / "tls")
    client_ca = folder / "ca.crt"
    client_ca.write_bytes(authority.pem)
    return {
        "LORALAND_TOKENS_FILE": str(write_callers(folder, has_certificate=True)),
        "LORALAND_TLS_CERT_FILE": str(certificate),
        "LORALAND_TLS_KEY_FILE": str(key),
        "LORALAND_TLS_CLIENT_CA_FILE": str(client_ca),
        "LORALAND_TRACES_ENDPOINT": collected.endpoint,
        "LORALAND_LOG_LEVEL": "DEBUG",
        # How often spans are sent, in OpenTelemetry's own words.
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


async def test_trace_goes_from_the_client_through_the_load_to_the_decode(world: World) -> None:
    """The caller's span is the parent; the engine's parts lie below the call."""
    span = TracerProvider().get_tracer("test").start_span("question")
    async with world.client() as client:
        with trace.use_span(span, end_on_exit=True):
            answer = await client.generate(prompt="hello", adapter="default/one", **SHORT)

    def spans() -> dict[str, Any]:
        trace_id = span.get_span_context().trace_id.to_bytes(16, "big")
        found = [s for s in world.collector.spans if s.trace_id == trace_id]
        return {s.name.rsplit("/", 1)[-1]: s for s in found}

    names = {"Generate", "load", "queue", "prefill", "decode"}
    await until(lambda: names <= set(spans()))
    root = spans()["Generate"]
    assert answer.completion_tokens == 8
    assert root.parent_span_id == span.get_span_context().span_id.to_bytes(8, "big")
    assert {spans()[n].parent_span_id for n in names - {"Generate"}} == {root.span_id}


async def test_metrics_and_probes_tell_of_the_replica(world: World) -> None:
    """Over plain HTTP, which probes and Prometheus speak."""
    async with world.client() as client:
        await client.generate(prompt="hello", adapter="default/one", **SHORT)
    text = world.get("/metrics")

    assert (world.get("/livez"), world.get("/readyz")) == ("OK\n", "OK\n")
    expected = [
        'loraland_adapter_requests_total{adapter="default/one",code="OK"}',
        'loraland_tenant_tokens_total{tenant="default"}',
        'loraland_adapter_lookups_total{tier="slot"}',
        'loraland_config_reload_successful{file="certificate"} 1.0',
        "loraland_registry_known 1.0",
        "loraland_ready 1.0",
    ]
    assert [line for line in expected if line not in text] == []


@pytest.mark.slow
async def test_certificate_and_callers_change_without_a_restart(restored: World) -> None:
    """A broken certificate is told by a metric; a new one serves; a caller taken out is refused."""
    world = restored
    certificate = world.folder / "tls" / "tls.crt"
    certificate.write_text("half of a certifi")
    await until(lambda: 'reload_successful{file="certificate"} 0.0' in world.get("/metrics"))
    successor = Authority("successor")
    successor.issue(world.folder / "tls")
    await until(lambda: 'reload_successful{file="certificate"} 1.0' in world.get("/metrics"))
    async with world.client(authority=successor) as client:
        await client.generate(prompt="hello", **SHORT)
        write_callers(world.folder, has_certificate=False)
        with pytest.raises(CallFailed) as caught:
            await client.generate(prompt="hello", **SHORT)
    async with world.client(SECRET, authority=successor) as client:
        answer = await client.generate(prompt="hello", **SHORT)

    assert caught.value.code == grpc.StatusCode.UNAUTHENTICATED
    assert answer.completion_tokens == 8
    assert SECRET not in world.replica.log()
