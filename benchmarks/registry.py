"""What the registry costs and how fast it is: thousands of adapters, twenty replicas, one Redis.

Two replicas' readers and heartbeats run in processes of their own, as in a real replica; the others
share a third process. The operator's part is the operator's own code, under the users that the
chart ships. Nothing generates: this measures Redis's share alone.

    python benchmarks/registry.py --adapters 10000 --replicas 20 --json registry.json
"""

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import registry_replicas as replicas
from loopback import free_port, running_server
from loraland_core import keys, redis_acl, redis_connection
from loraland_core.keys import AdapterRecord
from loraland_inference.adapters.presence import Presence
from loraland_inference.adapters.registry import Registry
from loraland_local import redisserver
from loraland_operator import registry as operator_registry

BASE, HOST = replicas.BASE, replicas.HOST
NUM_REAL = 2
NUM_BEATS = 200
# Not one of the chart's: reads what Redis says of itself.
ADMIN = "admin"
LIMIT_S = 120.0


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        environ = _start_redis(Path(folder), stack)
        result = asyncio.run(_measure(arguments, environ, stack))
    _print(result)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--publications", type=int, default=200)
    parser.add_argument("--idle-s", type=float, default=20.0)
    parser.add_argument("--json", default="")
    return parser.parse_args()


def _start_redis(folder: Path, stack: ExitStack) -> dict[str, str]:
    port, passwords = free_port(), {user: secrets.token_hex() for user in redis_acl.RULES}
    access_list = folder / "users.acl"
    passwords[ADMIN] = secrets.token_hex()
    rules = f"user {ADMIN} on >{passwords[ADMIN]} ~* +@all\n"
    access_list.write_text(redis_acl.build_file(passwords) + rules)
    command = redisserver.build_command(
        host=HOST, port=port, folder=folder, access_list=access_list
    )
    stack.enter_context(running_server(command, port))
    return {
        "LORALAND_REDIS_URL": f"redis://{HOST}:{port}",
        **{f"PASSWORD_{user}": password for user, password in passwords.items()},
    }


class Watch:
    """Hears the replicas' processes, and knows which revision each replica has seen, and when."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.seen: dict[str, list[tuple[int, float]]] = {}
        self.started_s: dict[str, float] = {}
        self._changed = asyncio.Event()

    async def listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            event = json.loads(line)
            self.seen.setdefault(event["replica"], []).append((event["revision"], event["at_s"]))
            self.started_s[event["replica"]] = event["started_s"]
            self._changed.set()

    async def until(self, revision: int, num_replicas: int) -> list[float]:
        """Return when each replica had the revision, once all have it."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                self._changed.clear()
                times = [self._first(replica, revision) for replica in self.seen]
                found = [at_s for at_s in times if at_s is not None]
                if len(found) == num_replicas:
                    return found
                await self._changed.wait()

    def _first(self, replica: str, revision: int) -> float | None:
        return next((at_s for seen, at_s in self.seen[replica] if seen >= revision), None)


async def _measure(
    arguments: argparse.Namespace, environ: dict[str, str], stack: ExitStack
) -> dict[str, Any]:
    operator = operator_registry.connect(replicas.settings(environ, redis_acl.OPERATOR))
    wanted = {f"land/adapter-{n}": replicas.record(n) for n in range(arguments.adapters)}

    async def collect() -> tuple[dict[str, AdapterRecord], set[str]]:
        return wanted, set(wanted)

    started_s = time.monotonic()
    await operator.publish(BASE, collect)
    publish_all_s = time.monotonic() - started_s
    watch = Watch()
    processes = [
        await _spawn(environ, watch, first, count, stack)
        for first, count in _split(arguments.replicas)
    ]
    records = [operator.find_record(BASE, i) for i in wanted]
    newest = max(record.revision for record in records if record)
    await watch.until(newest, arguments.replicas)
    reads_s = [watch.seen[r][0][1] - watch.started_s[r] for r in list(watch.seen)[:NUM_REAL]]
    await asyncio.sleep(2 * keys.HEARTBEAT_EVERY_S)
    idle = await _idle(environ, processes, arguments)
    beat = await _beat_cost(environ, arguments.adapters)
    latencies, applied = await _publications(operator, watch, arguments)
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
    await operator.close()
    return {
        "machine": {"cpus": os.cpu_count()},
        "num_adapters": arguments.adapters,
        "num_replicas": arguments.replicas,
        "publish_all_s": publish_all_s,
        "full_read_s": statistics.median(reads_s),
        **idle,
        **beat,
        "visible_everywhere_s": _percentiles(latencies),
        "applied_reported_everywhere_s": _percentiles(applied),
        "rows": [{"visible_s": v, "applied_s": a} for v, a in zip(latencies, applied, strict=True)],
    }


def _split(num_replicas: int) -> list[tuple[int, int]]:
    """Return first number and count of the replicas of each process."""
    single = [(number, 1) for number in range(min(NUM_REAL, num_replicas))]
    rest = num_replicas - len(single)
    return [*single, (len(single), rest)] if rest else single


async def _spawn(
    environ: dict[str, str], watch: Watch, first: int, count: int, stack: ExitStack
) -> asyncio.subprocess.Process:
    command = [replicas.__file__, str(first), str(count)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=os.environ | environ,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    stack.callback(lambda: process.returncode is None and process.kill())
    watch.tasks.append(asyncio.create_task(watch.listen(process)))
    return process


async def _idle(
    environ: Mapping[str, str],
    processes: list[asyncio.subprocess.Process],
    arguments: argparse.Namespace,
) -> dict[str, float]:
    """Return what a quiet land costs: shares of a CPU, and bytes, in both directions."""
    real = [psutil.Process(process.pid) for process in processes[:NUM_REAL]]
    admin = redis_connection.connect(replicas.settings(environ, ADMIN), client_name="bench")
    before, redis_before = [_cpu_s(process) for process in real], await _spent(admin)
    started_s = time.monotonic()
    await asyncio.sleep(arguments.idle_s)
    wall_s = time.monotonic() - started_s
    after, redis_after = [_cpu_s(process) for process in real], await _spent(admin)
    await admin.aclose()
    spent = [(a - b) / wall_s for a, b in zip(after, before, strict=True)]
    redis_cpu, redis_bytes = (
        (a - b) / wall_s for a, b in zip(redis_after, redis_before, strict=True)
    )
    return {
        "idle_redis_cpu_percent": 100 * redis_cpu,
        "idle_replica_cpu_percent": 100 * statistics.mean(spent),
        "idle_bytes_per_s_per_replica": redis_bytes / arguments.replicas,
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _spent(admin: Any) -> tuple[float, float]:
    """Return CPU seconds and bytes since Redis's start."""
    cpu, stats = await admin.info("cpu"), await admin.info("stats")
    cpu_s = cpu["used_cpu_user"] + cpu["used_cpu_sys"]
    return cpu_s, stats["total_net_input_bytes"] + stats["total_net_output_bytes"]


async def _beat_cost(environ: Mapping[str, str], num_adapters: int) -> dict[str, float]:
    """Return what one heartbeat costs a replica that knows all adapters and holds some."""
    registry = Registry()
    registry.replace({f"land/adapter-{n}": replicas.record(n) for n in range(num_adapters)}, 1)
    for adapter_id, record in registry.unverified():
        registry.set_verified(adapter_id, record, None)
    client = redis_connection.connect(
        replicas.settings(environ, redis_acl.REPLICA), client_name="bench"
    )
    admin = redis_connection.connect(replicas.settings(environ, ADMIN), client_name="bench")
    presence = Presence(
        client,
        heartbeat=lambda: replicas.heartbeat("beat-cost", registry),
        residency=lambda: replicas.residency("beat-cost", registry),
    )
    await presence._beat()
    redis_before, started_s = await _spent(admin), time.process_time()
    for _ in range(NUM_BEATS):
        await presence._beat()
    cpu_s, redis_after = time.process_time() - started_s, await _spent(admin)
    await presence.leave()
    for opened in (client, admin):
        await opened.aclose()
    redis_cpu_s, num_bytes = (a - b for a, b in zip(redis_after, redis_before, strict=True))
    return {
        "beat_cpu_ms": 1000 * cpu_s / NUM_BEATS,
        "beat_redis_cpu_ms": 1000 * redis_cpu_s / NUM_BEATS,
        "beat_bytes": num_bytes / NUM_BEATS,
    }


async def _publications(
    operator: operator_registry.Registry, watch: Watch, arguments: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Publish one adapter after the other; return when all see it, and when all have said so."""
    visible, applied = [], []
    for number in range(arguments.publications):
        started_s = time.time()
        changed = replicas.record(arguments.adapters + number)
        record = await operator.put(f"land/adapter-{number % arguments.adapters}", changed)
        seen = await watch.until(record.revision, arguments.replicas)
        visible.append(max(seen) - started_s)
        while not await _is_reported(  # noqa: ASYNC110 (nobody tells)
            operator, record.revision, arguments.replicas
        ):
            await asyncio.sleep(0.02)
        applied.append(time.time() - started_s)
    return visible, applied


async def _is_reported(
    operator: operator_registry.Registry, revision: int, num_replicas: int
) -> bool:
    fleet = await operator.read_fleet(BASE)
    return sum(beat.applied_revision >= revision for beat in fleet.beats) >= num_replicas


def _percentiles(values_s: list[float]) -> dict[str, float]:
    ordered = sorted(values_s)
    return {
        f"p{percent}": ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
        for percent in (50, 99)
    }


def _print(result: dict[str, Any]) -> None:
    print(f"{result['num_adapters']} adapters, {result['num_replicas']} replicas")
    rows = {
        "operator publishes everything": f"{result['publish_all_s']:.2f} s",
        "a replica reads everything": f"{result['full_read_s']:.2f} s",
        "visible on every replica, p50 / p99": _pair(result["visible_everywhere_s"]),
        "reported by every heartbeat, p50 / p99": _pair(result["applied_reported_everywhere_s"]),
        "one heartbeat": f"{result['beat_cpu_ms']:.2f} ms of the replica,"
        f" {result['beat_redis_cpu_ms']:.2f} ms of Redis, {result['beat_bytes']:.0f} bytes",
        "a quiet replica": f"{result['idle_replica_cpu_percent']:.2f} % of a CPU,"
        f" {result['idle_bytes_per_s_per_replica']:.0f} bytes/s",
        "Redis, all quiet": f"{result['idle_redis_cpu_percent']:.2f} % of a CPU",
    }
    for what, value in rows.items():
        print(f"  {what:<40} {value}")


def _pair(percentiles: dict[str, float]) -> str:
    return f"{1000 * percentiles['p50']:.0f} / {1000 * percentiles['p99']:.0f} ms"


if __name__ == "__main__":
    main()
