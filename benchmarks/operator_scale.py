"""What thousands of FineTuneJobs and Adapters cost the operator.

Everything is real but the pods: the embedded API server, S3, Redis, the operator's own process with
exactly the rights of its Role. A player takes the place of Job controller, kubelet and trainer and
ends each run at once. The same is done at a quarter of the size; what an object costs must not grow
with their number. The API server's processor time is told apart from the operator's.
"""

import argparse
import json
import re
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fakes"))

import psutil
import urllib3
from loraland_core import artifacts, names
from loraland_core.artifacts import Result
from operator_objects import build_adapter_object, build_job_object
from operator_world import World, path_of, running_world, wait_for
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS
SHARED_ARTIFACT = "shared"
NUM_CLIENTS = 4
LOOK_EVERY_S = 1.0
# Wide enough for the table, wherever it is printed.
console = Console(width=140)


@dataclass(frozen=True)
class Measured:
    """One size, from an empty cluster to all settled, and once more after a restart."""

    num_jobs: int
    num_adapters: int
    converged: bool
    converge_s: float
    reconciles: int
    reconciles_per_s: float
    operator_cpu_s: float
    api_server_cpu_s: float
    api_requests: int
    api_writes: int
    api_requests_per_object: float
    cpu_ms_per_object: float
    peak_memory_bytes: int
    restart_s: float
    restart_writes: int

    @property
    def num_objects(self) -> int:
        return self.num_jobs + self.num_adapters


class Processes:
    """Processor time and memory of the operator and of the API server."""

    def __init__(self) -> None:
        self._peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def cpu_s(self, module: str) -> float:
        return sum(sum(p.cpu_times()[:2]) for p in _children(module))

    @property
    def peak_bytes(self) -> int:
        return self._peak_bytes

    @contextmanager
    def sampled(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.5):
            found = [p.memory_info().rss for p in _children("loraland_operator") if p.is_running()]
            self._peak_bytes = max([self._peak_bytes, *found])


def _children(module: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if module in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def play_pods(world: World, is_over: threading.Event) -> None:
    """End each Job's run as soon as the Job is there, with an artifact and a result."""
    manifest = world.upload_artifact(SHARED_ARTIFACT)
    played: set[str] = set()
    while not is_over.wait(LOOK_EVERY_S / 4):
        for job in world.api.list(path_of("jobs")):
            name = job["metadata"]["name"]
            if name in played or job.get("status", {}).get("completionTime"):
                continue
            played.add(name)
            _copy_artifact(world, name, manifest)
            result = Result(
                job_uid=job["metadata"]["labels"][names.LABEL_JOB_UID],
                uri=world.store.uri(artifacts.adapter_prefix("default", name, manifest.digest)),
                digest=manifest.digest,
                size_bytes=manifest.size_bytes,
                metrics=[],
                num_evaluated=0,
                gate_passed=True,
                created_at="2026-01-01T00:00:00Z",
            )
            world.store.write(artifacts.result_key(result.job_uid), result.to_json())
            world.complete(job)


def _copy_artifact(world: World, name: str, manifest: artifacts.Manifest) -> None:
    source = artifacts.adapter_prefix("default", SHARED_ARTIFACT, manifest.digest)
    target = artifacts.adapter_prefix("default", name, manifest.digest)
    for path in (*artifacts.SERVED_FILES, artifacts.MANIFEST_FILE):
        world.store.write(target + path, world.store.read(source + path))


def play_replica(world: World, is_over: threading.Event) -> None:
    """Beat as a replica that applies every record at once."""
    while not is_over.wait(2.0):
        world.beat()


def create_all(world: World, num_jobs: int, num_adapters: int, digest: str) -> None:
    source = {"artifact": {"digest": digest, "name": SHARED_ARTIFACT}}
    objects = [build_job_object(f"job-{i:05d}") for i in range(num_jobs)]
    objects += [build_adapter_object(f"adp-{i:05d}", source=source) for i in range(num_adapters)]
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        list(pool.map(world.create, objects))


def settled(world: World) -> tuple[int, int]:
    """Return how many jobs have succeeded and how many Adapters are Ready."""
    jobs = Counter(o.get("status", {}).get("phase") for o in _all(world, JOBS))
    adapters = Counter(o.get("status", {}).get("phase") for o in _all(world, ADAPTERS))
    return jobs["Succeeded"], adapters["Ready"]


def _all(world: World, plural: str) -> list[dict[str, Any]]:
    return world.api.list(path_of(plural))


def scrape(world: World) -> dict[str, float]:
    """Return the operator's own metrics, summed over their labels."""
    port = world.environment["LORALAND_METRICS_PORT"]
    try:
        answer = urllib3.request(
            "GET", f"http://127.0.0.1:{port}/metrics", timeout=5, retries=False
        )
    except urllib3.exceptions.HTTPError:
        return {}
    found: dict[str, float] = defaultdict(float)
    for line in answer.data.decode().splitlines():
        match = re.match(r"(\w+)(\{.*\})? (\S+)$", line)
        if match:
            found[match[1]] += float(match[3])
    return dict(found)


def requests_of_operator(world: World) -> tuple[int, int]:
    """Return how many requests the operator made, and how many of them wrote."""
    mine = [e for e in world.audit_log() if "loraland-operator" in e["userAgent"]]
    return len(mine), sum(e["verb"] != "get" for e in mine)


def wait_settled(
    world: World, num_jobs: int, num_adapters: int, limit_s: float, progress: Progress
) -> bool:
    task = progress.add_task(
        f"{num_jobs} jobs, {num_adapters} adapters", total=2 * num_jobs + num_adapters
    )
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        done = settled(world)
        progress.update(task, completed=sum(done))
        # Each job's Adapter is one more.
        if done == (num_jobs, num_adapters + num_jobs):
            return True
        time.sleep(LOOK_EVERY_S)
    return False


def restart(world: World, num_objects: int, limit_s: float) -> float:
    """Return how long a new operator takes until it has looked at everything."""
    world.stop_operator()
    begun_s = time.monotonic()
    world.start_operator()
    wait_for(
        lambda: (
            (found := scrape(world))
            and found.get("loraland_operator_reconciles_total", 0) >= num_objects
            and found.get("loraland_operator_queue_length") == 0
        ),
        "the operator to have seen everything",
        limit_s=limit_s,
    )
    return time.monotonic() - begun_s


def measure(num_jobs: int, num_adapters: int, limit_s: float) -> Measured:
    with (
        tempfile.TemporaryDirectory() as name,
        running_world(Path(name)) as world,
        Progress(console=console) as progress,
    ):
        world.environment["LORALAND_LOG_LEVEL"] = "WARNING"
        digest = world.upload_artifact(SHARED_ARTIFACT).digest
        processes, is_over = Processes(), threading.Event()
        players = [
            threading.Thread(target=play, args=(world, is_over))
            for play in (play_pods, play_replica)
        ]
        world.start_operator()
        wait_for(lambda: scrape(world).get("loraland_operator_leading"), "the operator")
        begun_s, api_before_s = time.monotonic(), processes.cpu_s("loraland_local.api")
        with processes.sampled():
            for player in players:
                player.start()
            try:
                create_all(world, num_jobs, num_adapters, digest)
                converged = wait_settled(world, num_jobs, num_adapters, limit_s, progress)
                converge_s = time.monotonic() - begun_s
                cpu_s = processes.cpu_s("loraland_operator")
                api_cpu_s = processes.cpu_s("loraland_local.api") - api_before_s
                reconciles = int(scrape(world)["loraland_operator_reconciles_total"])
                num_requests, num_writes = requests_of_operator(world)
                restart_s = restart(world, 2 * num_jobs + num_adapters, limit_s)
                restart_writes = requests_of_operator(world)[1] - num_writes
            finally:
                is_over.set()
                for player in players:
                    player.join()
    num_objects = num_jobs + num_adapters
    return Measured(
        num_jobs=num_jobs,
        num_adapters=num_adapters,
        converged=converged,
        converge_s=converge_s,
        reconciles=reconciles,
        reconciles_per_s=reconciles / converge_s,
        operator_cpu_s=cpu_s,
        api_server_cpu_s=api_cpu_s,
        api_requests=num_requests,
        api_writes=num_writes,
        api_requests_per_object=num_requests / num_objects,
        cpu_ms_per_object=1000 * cpu_s / num_objects,
        peak_memory_bytes=processes.peak_bytes,
        restart_s=restart_s,
        restart_writes=restart_writes,
    )


def show(sizes: list[Measured], cost_ratio: float) -> None:
    table = Table(title="What objects cost the operator")
    for heading in ("objects", "settled", "s", "reconciles/s", "API requests/object",
                    "operator ms/object", "API server ms/object", "peak MiB", "restart s",
                    "writes after restart"):  # fmt: skip
        table.add_column(heading, justify="right")
    for m in sizes:
        table.add_row(
            f"{m.num_jobs} + {m.num_adapters}",
            "yes" if m.converged else "no",
            f"{m.converge_s:.0f}",
            f"{m.reconciles_per_s:.0f}",
            f"{m.api_requests_per_object:.1f}",
            f"{m.cpu_ms_per_object:.1f}",
            f"{1000 * m.api_server_cpu_s / m.num_objects:.1f}",
            f"{m.peak_memory_bytes / 2**20:.0f}",
            f"{m.restart_s:.1f}",
            str(m.restart_writes),
        )
    console.print(table)
    console.print(f"cost of an object, full size over a quarter: {cost_ratio:.2f} (limit 1.25)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="FineTuneJobs at full size")
    parser.add_argument("--adapters", type=int, default=5000, help="Adapters at full size")
    parser.add_argument("--limit-s", type=float, default=1800.0, help="give up after so long")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    sizes = [
        measure(options.jobs // 4, options.adapters // 4, options.limit_s),
        measure(options.jobs, options.adapters, options.limit_s),
    ]
    quarter, full = sizes
    cost_ratio = full.cpu_ms_per_object / quarter.cpu_ms_per_object
    show(sizes, cost_ratio)
    if options.json:
        document = {
            "converged": all(m.converged for m in sizes),
            "reconciles_per_s": full.reconciles_per_s,
            "api_requests_per_object": full.api_requests_per_object,
            "peak_memory_bytes": full.peak_memory_bytes,
            "cost_ratio": cost_ratio,
            "api_server_cpu_s": full.api_server_cpu_s,
            "sizes": [asdict(m) for m in sizes],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(m.converged for m in sizes) else 1
