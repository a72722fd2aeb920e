"""Kills the operator at every point where it waits for somebody: `python tests/crash/run.py`.

One scenario is played again and again: a FineTuneJob is trained and becomes an Adapter, which is
served and deleted together with its files. The first time finds the points; then it is played once
for each of them, the operator is killed there and started again, and everything must end as it did
without. Prints a line a point, and points found, survived and duplicates.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from loraland_core import artifacts, keys, names
from operator_objects import BASE, build_job_object
from operator_world import World, path_of, running_world, wait_for

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS
PROGRAM = Path(__file__).parent / "operator_with_points.py"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/loraland-operator"
STORY = ["SpecAccepted", "Training", "ArtifactUploaded", "Published", "Completed"]


@dataclass
class Fallible:
    """An operator that dies at one point and is started again without it."""

    world: World
    record: Path
    point: str = ""
    num_deaths: int = 0
    _is_over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Fallible":
        self.record.write_text("")
        self._process = self._start(self.point)
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._keeper.join()
        self._process.kill()
        self._process.wait()

    def _keep(self) -> None:
        while not self._is_over.wait(0.02):
            if self._process.poll() is not None:
                self.num_deaths += 1
                self._process = self._start("")

    def _start(self, point: str) -> "subprocess.Popen[bytes]":
        with (self.world.folder / "operator.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(PROGRAM)],
                env={
                    **self.world.environment,
                    "CRASH_RECORD": str(self.record),
                    "CRASH_POINT": point,
                },
                stdout=log,
                stderr=log,
            )


def play(world: World, name: str) -> list[str]:
    """Play the scenario to its end; return what is there twice or too much."""
    job = build_job_object(name)
    job["spec"]["output"] = {"adapter": {"deletionPolicy": "Delete"}}
    world.create(job)
    child = world.wait_for_job(name)
    world.start_pod(child)
    world.wait_for_condition(JOBS, name, "Running", "True/Training")
    result = world.write_result(child, name)
    world.complete(child)
    world.wait_for_condition(JOBS, name, "Succeeded", "True/Completed")
    wait_for(lambda: world.record(f"default/{name}"), "the record")
    world.beat()
    world.wait_for_condition(ADAPTERS, name, "Ready", "True/Serving")
    found = duplicates(world, name, child["metadata"]["uid"])
    world.delete(ADAPTERS, name)
    wait_for(lambda: world.api.find(path_of(ADAPTERS, name)) is None, "the Adapter's end")
    world.delete(JOBS, name)
    prefix = artifacts.adapter_prefix("default", name, result.digest)
    if list(world.store.find_objects(prefix)):
        found.append("files of a deleted Adapter")
    if world.redis.hexists(keys.adapters(BASE), f"default/{name}"):
        found.append("the record of a deleted Adapter")
    return found


def duplicates(world: World, name: str, job_uid: str) -> list[str]:
    """Return what a repeated step has left beside the one that should be there."""
    jobs = [j for j in world.api.list(path_of("jobs")) if j["metadata"]["name"].startswith(name)]
    adapters = [a for a in world.api.list(path_of(ADAPTERS)) if name in a["metadata"]["name"]]
    events = world.events_of("FineTuneJob", name)
    found = []
    if [j["metadata"]["uid"] for j in jobs] != [job_uid]:
        found.append(f"{len(jobs)} Jobs")
    if len(adapters) != 1:
        found.append(f"{len(adapters)} Adapters")
    if sorted(set(events)) != sorted(events) or set(events) != set(STORY):
        found.append(f"events {events}")
    return found


def survive(world: World, record: Path, point: str, index: int) -> tuple[str, list[str]]:
    """Return how the scenario ended with a death at the point, and what was there twice."""
    # Each contender finds the world without one, so that it has to create it.
    world.api.call("DELETE", LEASE)
    with Fallible(world, record, point) as operator:
        try:
            twice = play(world, f"crash-{index}")
        except (TimeoutError, AssertionError) as error:
            return f"lost: {str(error)[:200]}", []
    return ("survived" if operator.num_deaths else "not reached"), twice


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the counts")
    parser.add_argument("--every", type=int, default=1, help="play only every n-th point")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running_world(Path(name)) as world:
        record = Path(name) / "points"
        with Fallible(world, record) as operator:
            twice = play(world, "crash-0")
        found = list(dict.fromkeys(record.read_text().splitlines()))
        chosen = found[:: options.every]
        print(f"{len(found)} points found, {len(chosen)} to be played")
        assert not operator.num_deaths, "the operator died by itself"
        ends: dict[str, str] = {}
        for index, point in enumerate(chosen, start=1):
            begun_s = time.monotonic()
            end, more = survive(world, record, point, index)
            twice += more
            ends[point] = end
            took_s = time.monotonic() - begun_s
            line = f"{index:4}/{len(chosen)}  {end:12} {took_s:5.1f} s  {point}  {', '.join(more)}"
            print(line.rstrip(), flush=True)
    return report(chosen, ends, twice, options.json)


def report(chosen: list[str], ends: dict[str, str], twice: list[str], file: Path | None) -> int:
    """Print and write the counts; return 0 if nothing was lost and nothing is there twice."""
    # A point that the second run did not come by is none: polls differ from run to run.
    reached = [p for p in chosen if ends[p] != "not reached"]
    counts = {
        "points_found": len(reached),
        "points_survived": sum(ends[p] == "survived" for p in reached),
        "points_not_reached": len(chosen) - len(reached),
        "duplicates": len(twice),
    }
    print("  ".join(f"{key} {value}" for key, value in counts.items()))
    if file is not None:
        file.write_text(json.dumps(counts | {"points": ends}, indent=2) + "\n")
    is_whole = counts["points_found"] == counts["points_survived"] and not twice
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
