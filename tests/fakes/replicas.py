"""A real replica of a tiny base model, and what it serves: for tests of the data plane."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
import servers
import tiny_base
import tiny_models
from loraland_client import Client
from loraland_core import artifacts, keys
from loraland_core.catalogue import BaseModelEntry
from loraland_core.keys import AdapterRecord, Epoch
from loraland_core.prompts import PromptTemplate
from loraland_core.store import Store, StoreConfig
from loraland_models import sources
from waiting import wait_for

BASE = "tiny"
TOKEN, OTHER_TOKEN, ADMIN_TOKEN = "token-of-default", "token-of-other", "token-of-admin"
TEMPLATE = "Q: {question}\nA:"


def write_catalogue(folder: Path, base_folder: Path) -> Path:
    path = folder / "catalogue.yaml"
    path.write_text(
        "schemaVersion: 1\n"
        f"baseModels:\n  {BASE}:\n"
        f"    source: {{directory: {base_folder}}}\n"
        "    serving: {quantization: none, dtype: float32}\n"
        "    limits: {contextTokens: 256, maxRank: 16}\n"
    )
    return path


def write_tokens(path: Path, tokens: dict[str, tuple[str, list[str]]]) -> None:
    entries = [
        {"sha256": hashlib.sha256(t.encode()).hexdigest(), "tenant": tenant, "roles": roles}
        for t, (tenant, roles) in tokens.items()
    ]
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps({"schemaVersion": 1, "tokens": entries}))
    partial.rename(path)


@dataclass
class Land:
    """S3, Redis and the operator's part in them."""

    folder: Path
    store: Store
    redis_url: str
    base_folder: Path
    revision: str = ""
    last_revision: int = 0
    records: dict[str, AdapterRecord] = field(default_factory=dict)

    @property
    def redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url, protocol=2)

    def upload(self, adapter_id: str, adapter_folder: Path, **overrides: Any) -> artifacts.Manifest:
        """Upload an adapter as the trainer does; ``overrides`` change the manifest."""
        namespace, name = adapter_id.split("/")
        (adapter_folder / "prompt.json").write_bytes(
            PromptTemplate(kind="fields", template=TEMPLATE).to_json()
        )
        files = [
            artifacts.File(
                path=path,
                size_bytes=(adapter_folder / path).stat().st_size,
                sha256=hashlib.sha256((adapter_folder / path).read_bytes()).hexdigest(),
            )
            for path in artifacts.SERVED_FILES
        ]
        config = json.loads((adapter_folder / artifacts.CONFIG_FILE).read_bytes())
        manifest = artifacts.Manifest(
            **{
                "base_model": BASE,
                "resolved_revision": self.revision,
                "training_precision": "float32",
                "rank": config["r"],
                "alpha": config["lora_alpha"],
                "target_modules": ["q_proj"],
                "dtype": "float32",
                "files": files,
                "created_at": artifacts.now_text(datetime.now(UTC)),
            }
            | overrides
        )
        prefix = artifacts.adapter_prefix(namespace, name, manifest.digest)
        for path in artifacts.SERVED_FILES:
            self.store.upload(adapter_folder / path, prefix + path)
        self.store.write(prefix + artifacts.MANIFEST_FILE, manifest.to_json())
        return manifest

    def publish(
        self, adapter_id: str, manifest: artifacts.Manifest, **overrides: Any
    ) -> AdapterRecord:
        """Write a record as the operator does."""
        namespace, name = adapter_id.split("/")
        self.last_revision = max(self.last_revision + 1, int(time.time() * 1000))
        record = AdapterRecord(
            **{
                "base_model": BASE,
                "digest": manifest.digest,
                "uri": self.store.uri(artifacts.adapter_prefix(namespace, name, manifest.digest)),
                "size_bytes": manifest.size_bytes,
                "rank": manifest.rank,
                "tenants": [namespace],
                "revision": self.last_revision,
            }
            | overrides
        )
        self.records[adapter_id] = record
        self._write(adapter_id, record)
        return record

    def make(self, adapter_id: str, *, seed: int, **config: Any) -> Path:
        """Write a random adapter; return its folder."""
        folder = self.folder / adapter_id.replace("/", "-") / str(seed)
        return tiny_models.write_adapter(
            folder, seed=seed, build=lambda: tiny_models.load(self.base_folder), **config
        )

    def add(self, adapter_id: str, *, seed: int, **config: Any) -> AdapterRecord:
        """Make, upload and publish a random adapter."""
        folder = self.make(adapter_id, seed=seed, **config)
        return self.publish(adapter_id, self.upload(adapter_id, folder))

    def complete(self) -> None:
        """Say that the registry has been written completely."""
        epoch = Epoch(revision=self.last_revision, num_adapters=len(self.records))
        with self.redis as client:
            client.set(keys.epoch(BASE), epoch.to_json())

    def _write(self, adapter_id: str, record: AdapterRecord) -> None:
        with self.redis as client, client.pipeline() as pipe:
            pipe.hset(keys.adapters(BASE), adapter_id, record.to_json())
            pipe.xadd(
                keys.changes(BASE),
                {"adapter": adapter_id, "revision": str(record.revision), "op": "put"},
            )
            pipe.execute()

    def remove(self, adapter_id: str) -> None:
        """Take a record out as the operator does for an adapter that is disabled or deleted."""
        self.last_revision = max(self.last_revision + 1, int(time.time() * 1000))
        del self.records[adapter_id]
        with self.redis as client, client.pipeline() as pipe:
            pipe.hdel(keys.adapters(BASE), adapter_id)
            pipe.xadd(
                keys.changes(BASE),
                {"adapter": adapter_id, "revision": str(self.last_revision), "op": "delete"},
            )
            pipe.execute()

    def is_applied(self, replica: str = "replica-0") -> bool:
        """Whether the replica has a verdict on everything that was published."""
        beat = self.heartbeat(replica)
        return beat is not None and beat.applied_revision >= self.last_revision

    def rewrite(self) -> None:
        """Write all records and the epoch anew, as the operator does for an empty Redis."""
        for adapter_id, record in self.records.items():
            self._write(adapter_id, record)
        self.complete()

    def residency(self, replica: str = "replica-0") -> dict[str, keys.ResidentAdapter]:
        """Return what the replica says that it holds, by adapter id."""
        with self.redis as client:
            data = client.get(keys.residency(BASE, replica))
        return keys.parse_residency(data).adapters if data else {}

    def leases(self) -> list[str]:
        with self.redis as client:
            return [key.decode() for key in client.scan_iter("ll:v1:lease:*")]

    def heartbeat(self, replica: str = "replica-0") -> keys.Heartbeat | None:
        with self.redis as client:
            data = client.get(keys.beat(BASE, replica))
        return keys.parse_heartbeat(data) if data else None


@dataclass
class Replica:
    """A running server process."""

    process: "subprocess.Popen[bytes]"
    address: str
    log_path: Path

    def client(self, token: str = TOKEN, **options: Any) -> Client:
        return Client(self.address, token, **options)

    def engine_pid(self) -> int:
        """Return the id of the engine process, the replica's only child."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def stop_engine(self) -> None:
        """Let the engine stand still."""
        os.kill(self.engine_pid(), signal.SIGSTOP)

    def continue_engine(self) -> None:
        os.kill(self.engine_pid(), signal.SIGCONT)

    def log(self) -> str:
        return self.log_path.read_text()


@contextmanager
def running(land: Land, store_config: StoreConfig, **settings: str) -> Iterator[Replica]:
    """Run a replica until the block ends; it must end by itself when told to."""
    port = servers.free_port()
    log_path = land.folder / f"replica-{port}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "loraland_inference"],
            env=environment(land, store_config, port) | settings,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    replica = Replica(process, f"127.0.0.1:{port}", log_path)
    try:
        wait_for(lambda: "the engine is ready" in replica.log(), process=process)
        yield replica
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=40)
        finally:
            process.kill()
            process.wait(timeout=10)


def environment(land: Land, store_config: StoreConfig, port: int) -> dict[str, str]:
    tokens = land.folder / "tokens.json"
    write_tokens(
        tokens,
        {
            TOKEN: ("default", ["inference"]),
            OTHER_TOKEN: ("other", ["inference"]),
            ADMIN_TOKEN: ("platform", ["inference", "admin"]),
        },
    )
    return os.environ | {
        "LORALAND_BASE_MODEL": BASE,
        "LORALAND_CATALOGUE": str(write_catalogue(land.folder, land.base_folder)),
        "LORALAND_STORE_BUCKET": store_config.bucket,
        "LORALAND_STORE_PREFIX": store_config.prefix,
        "LORALAND_STORE_ENDPOINT_URL": store_config.endpoint_url or "",
        "LORALAND_REDIS_URL": land.redis_url,
        "LORALAND_TOKENS_FILE": str(tokens),
        "LORALAND_CACHE_DIR": str(land.folder / "cache"),
        "LORALAND_PORT": str(port),
        "LORALAND_METRICS_PORT": str(servers.free_port()),
        "LORALAND_ENGINE_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "POD_IP": "127.0.0.1",
        "POD_NAME": "replica-0",
        "AWS_ACCESS_KEY_ID": servers.S3_CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": servers.S3_CREDENTIALS["aws_secret_access_key"],
    }


def build_base(folder: Path) -> tuple[Path, str]:
    """Write the tiny base model; return its folder and revision."""
    base_folder = tiny_base.write_base_model(folder / "base")
    entry = BaseModelEntry.model_validate({"source": {"directory": str(base_folder)}})
    resolved = sources.resolve(BASE, entry, cache_dir=folder / "cache")
    return base_folder, resolved.revision
