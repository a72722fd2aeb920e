"""A replica of the service with an S3 and a Redis of its own, for the length of a benchmark.

Plays the operator's part too: uploads adapters as artifacts and publishes their records.
"""

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import redis
import yaml
from loopback import free_port, running_server
from loraland_core import artifacts, keys, redis_acl
from loraland_core.catalogue import BaseModelEntry
from loraland_core.prompts import PROMPT_FILE, PromptTemplate
from loraland_core.store import Store, StoreConfig
from loraland_local import redisserver
from loraland_models import sources
from loraland_models.sources import ResolvedModel
from service import CpuTime

HOST, BUCKET, REPLICA, TENANT = "127.0.0.1", "benchmark", "replica-0", "default"
START_LIMIT_S = 90.0
STOP_LIMIT_S = 40.0


@dataclass(frozen=True)
class Replica:
    """Where the service answers, and the processes whose CPU time it costs, the front first."""

    address: str
    token: str
    adapter_ids: list[str]
    processes: list[psutil.Process] = field(default_factory=list)

    def cpu_s(self) -> CpuTime:
        front, *others = (p.cpu_times() for p in self.processes)
        front_s = front.user + front.system
        return CpuTime(front_s + sum(t.user + t.system for t in others), front_s)

    def engine_memory_bytes(self) -> int:
        """Return the resident memory of its largest process, the one with the weights."""
        return max((p.memory_info().rss for p in self.processes), default=0)


@contextmanager
def running(
    model: ResolvedModel,
    folders: list[Path],
    *,
    folder: Path,
    num_slots: int,
    max_running: int,
    threads: int,
    prefix_cache: bool,
) -> Iterator[Replica]:
    """Start S3, Redis and a replica that serves the adapters; stop all at the end of the block."""
    model = _by_directory(model, folder / "cache")
    with ExitStack() as stack:
        s3_port, redis_port = free_port(), free_port()
        s3 = stack.enter_context(running_server(_s3_command(folder, s3_port), s3_port))
        _wait((folder / "s3.ready").exists, s3, folder)
        passwords = {"operator_password": secrets.token_hex(), "replica_password": ""}
        passwords["replica_password"] = secrets.token_hex()
        stack.enter_context(
            running_server(_redis_command(folder, redis_port, passwords), redis_port)
        )
        credentials = {"aws_access_key_id": "benchmark", "aws_secret_access_key": "benchmark"}
        store_config = StoreConfig(bucket=BUCKET, endpoint_url=f"http://{HOST}:{s3_port}")
        store = Store(store_config, credentials=credentials)
        operator_url = _redis_url(redis_port, redisserver.OPERATOR_USER, passwords)
        client = stack.enter_context(redis.Redis.from_url(operator_url, protocol=2))
        adapter_ids = _publish(model, folders, store, client)
        token, port = secrets.token_hex(), free_port()
        environment = _environment(model, folder, store_config, token) | {
            "LORALAND_REDIS_URL": _redis_url(redis_port, redisserver.REPLICA_USER, passwords),
            "LORALAND_REDIS_REGISTRY_USER": redis_acl.REGISTRY,
            "LORALAND_PORT": str(port),
            "LORALAND_METRICS_PORT": str(free_port()),
            "LORALAND_NUM_SLOTS": str(num_slots),
            "LORALAND_MAX_RUNNING": str(max_running),
            "LORALAND_MAX_QUEUE": "4096",
            "LORALAND_ENGINE_THREADS": str(threads),
            "LORALAND_PREFIX_CACHE": str(prefix_cache).lower(),
        }
        process = stack.enter_context(_running_replica(environment, folder / "replica.log"))
        _wait(lambda: _is_ready(client, model.name, len(adapter_ids)), process, folder)
        processes = [psutil.Process(process.pid)]
        processes += processes[0].children(recursive=True)
        yield Replica(f"{HOST}:{port}", token, adapter_ids, processes)


def _by_directory(model: ResolvedModel, cache_dir: Path) -> ResolvedModel:
    """Return the same files as a source of their own, wherever they came from.

    So that the replica fetches nothing again; its revision is then that of the directory.
    """
    document = model.entry.model_dump(by_alias=True, exclude_none=True)
    document["source"] = {"directory": str(model.directory)}
    entry = BaseModelEntry.model_validate(document)
    return sources.resolve(model.name, entry, cache_dir=cache_dir)


def _s3_command(folder: Path, port: int) -> list[str]:
    command = [sys.executable, "-m", "loraland_local.objectstore", "--host", HOST]
    command += ["--port", str(port), "--folder", str(folder / "s3"), "--bucket", BUCKET]
    return [*command, "--ready-file", str(folder / "s3.ready")]


def _redis_command(folder: Path, port: int, passwords: dict[str, str]) -> list[str]:
    access_list = folder / "redis.acl"
    access_list.write_text(redisserver.build_access_list(**passwords))
    return redisserver.build_command(host=HOST, port=port, folder=folder, access_list=access_list)


def _redis_url(port: int, user: str, passwords: dict[str, str]) -> str:
    password = passwords[f"{user}_password"]
    return redisserver.build_url(HOST, port, user=user, password=password)


def _publish(
    model: ResolvedModel, folders: list[Path], store: Store, client: "redis.Redis"
) -> list[str]:
    revision = int(time.time() * 1000)
    adapter_ids = []
    for folder in folders:
        revision += 1
        manifest = _upload(model, folder, store)
        prefix = artifacts.adapter_prefix(TENANT, folder.name, manifest.digest)
        record = keys.AdapterRecord(
            base_model=model.name,
            digest=manifest.digest,
            uri=store.uri(prefix),
            size_bytes=manifest.size_bytes,
            rank=manifest.rank,
            tenants=[TENANT],
            revision=revision,
        )
        adapter_ids.append(f"{TENANT}/{folder.name}")
        client.hset(keys.adapters(model.name), adapter_ids[-1], record.to_json())
    epoch = keys.Epoch(revision=revision, num_adapters=len(folders))
    client.set(keys.epoch(model.name), epoch.to_json())
    return adapter_ids


def _upload(model: ResolvedModel, folder: Path, store: Store) -> artifacts.Manifest:
    """Upload an adapter as a trainer does: the manifest last."""
    contents = {path: _content(folder / path) for path in artifacts.SERVED_FILES}
    config = json.loads(contents[artifacts.CONFIG_FILE])
    manifest = artifacts.Manifest(
        base_model=model.name,
        resolved_revision=model.revision,
        training_precision="float32",
        rank=config["r"],
        alpha=config["lora_alpha"],
        target_modules=config["target_modules"],
        dtype="bf16",
        files=[
            artifacts.File(path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in contents.items()
        ],
        created_at=artifacts.now_text(datetime.now(UTC)),
    )
    prefix = artifacts.adapter_prefix(TENANT, folder.name, manifest.digest)
    for path, data in contents.items():
        store.write(prefix + path, data)
    store.write(prefix + artifacts.MANIFEST_FILE, manifest.to_json())
    return manifest


def _content(path: Path) -> bytes:
    """PEFT writes no prompt template; requests give token ids, so that any will do."""
    if path.name == PROMPT_FILE and not path.exists():
        return PromptTemplate(kind="fields", template="{text}").to_json()
    return path.read_bytes()


def _environment(
    model: ResolvedModel, folder: Path, store: StoreConfig, token: str
) -> dict[str, str]:
    entry = model.entry.model_dump(by_alias=True, exclude_none=True)
    catalogue = folder / "catalogue.yaml"
    catalogue.write_text(yaml.safe_dump({"schemaVersion": 1, "baseModels": {model.name: entry}}))
    tokens = folder / "tokens.json"
    hashed = hashlib.sha256(token.encode()).hexdigest()
    known = [{"sha256": hashed, "tenant": TENANT, "roles": ["inference", "admin"]}]
    tokens.write_text(json.dumps({"schemaVersion": 1, "tokens": known}))
    return os.environ | {
        "LORALAND_BASE_MODEL": model.name,
        "LORALAND_CATALOGUE": str(catalogue),
        "LORALAND_TOKENS_FILE": str(tokens),
        "LORALAND_STORE_BUCKET": store.bucket,
        "LORALAND_STORE_ENDPOINT_URL": store.endpoint_url or "",
        "LORALAND_CACHE_DIR": str(folder / "cache"),
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "POD_IP": HOST,
        "POD_NAME": REPLICA,
    }


@contextmanager
def _running_replica(environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "loraland_inference"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _is_ready(client: Any, base_model: str, num_adapters: int) -> bool:
    """Whether the replica beats and has applied every record."""
    beat = client.get(keys.beat(base_model, REPLICA))
    epoch = keys.parse_epoch(client.get(keys.epoch(base_model)))
    assert epoch.num_adapters == num_adapters
    if not beat:
        return False
    heartbeat = keys.parse_heartbeat(beat)
    if heartbeat.rejected:
        raise RuntimeError(f"the replica rejects adapters: {heartbeat.rejected}")
    return heartbeat.applied_revision >= epoch.revision


def _wait(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline_s:
            log = folder / "replica.log"
            text = log.read_text()[-4000:] if log.exists() else ""
            raise RuntimeError(f"{process.args!r} does not become ready:\n{text}")
        time.sleep(0.1)
