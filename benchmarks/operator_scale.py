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
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fakes"))

import urllib3
from loraland_core import names
from operator_objects import build_adapter_object, build_job_object
from operator_parties import SHARED_ARTIFACT, play_pods, play_replica
from operator_processes import Processes
from operator_report import Measured, console, show
from operator_world import World, path_of, running_world, wait_for
from rich.progress import Progress

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS
NUM_CLIENTS = 4
# The embedded server calls all of them get.
READS = ("get", "list", "watch")
LOOK_EVERY_S = 1.0


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
    return len(mine), sum(e["verb"] not in READS for e in mine)


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
        world.start_operator()
        wait_for(lambda: scrape(world).get("loraland_operator_leading"), "the operator")
        with _played(world):
            return _measure(
                world, num_jobs, num_adapters, digest, limit_s=limit_s, progress=progress
            )


@contextmanager
def _played(world: World) -> Iterator[None]:
    is_over = threading.Event()
    players = [
        threading.Thread(target=play, args=(world, is_over)) for play in (play_pods, play_replica)
    ]
    for player in players:
        player.start()
    try:
        yield
    finally:
        is_over.set()
        for player in players:
            player.join()


def _measure(
    world: World,
    num_jobs: int,
    num_adapters: int,
    digest: str,
    *,
    limit_s: float,
    progress: Progress,
) -> Measured:
    processes = Processes()
    begun_s, api_before_s = time.monotonic(), processes.cpu_s("loraland_local.api")
    with processes.sampled():
        create_all(world, num_jobs, num_adapters, digest)
        converged = wait_settled(world, num_jobs, num_adapters, limit_s, progress)
        converge_s = time.monotonic() - begun_s
        cpu_s = processes.cpu_s("loraland_operator")
        api_cpu_s = processes.cpu_s("loraland_local.api") - api_before_s
        reconciles = int(scrape(world)["loraland_operator_reconciles_total"])
        num_requests, num_writes = requests_of_operator(world)
        restart_s = restart(world, 2 * num_jobs + num_adapters, limit_s)
        restart_writes = requests_of_operator(world)[1] - num_writes
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
