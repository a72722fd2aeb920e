"""Breaks two replicas, their engines, Redis and S3 at random under load, and counts what came of it.

    make chaos SECONDS=300 SEED=7

The same seed draws the same faults in the same order. Exits with 1 if a request had no outcome or a
wrong one, or if anything is left behind when all is whole again: a temporary file, a lease, an engine
without its replica, a cache that does not hold what it says.
"""

import argparse
import asyncio
import hashlib
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import psutil
from chaos_faults import Faults
from chaos_load import Load
from chaos_world import NUM_REPLICAS, NUM_SLOTS, World, wait
from loraland_core import artifacts, keys
from loraland_core.rpc import inference_pb2, inference_pb2_grpc
from replicas import TOKEN

# Longer than a dead owner's lease lasts.
LEFT_LIMIT_S = keys.LEASE_TTL_S + 40.0
TRUTH_LIMIT_S = 60.0


async def break_things(world: World, seconds: float, seed: int) -> dict[str, Any]:
    """Run load and faults together; return what is known at the end."""
    load = Load(world, seed)
    faults = Faults(world, random.Random(seed))  # noqa: S311 (a simulation of bad luck)
    await load.learn()
    stop = asyncio.Event()
    callers = asyncio.create_task(load.run(stop))
    started_s = time.monotonic()
    try:
        await asyncio.to_thread(faults.run, seconds)
    finally:
        stop.set()
        await callers
    lasted_s = time.monotonic() - started_s
    await asyncio.to_thread(world.settle)
    await load.check_all()
    num_outcomes = sum(load.codes.values())
    violations = [*load.violations, *await asyncio.to_thread(find_leftovers, world)]
    if num_outcomes != load.num_asked:
        violations.append(f"{load.num_asked} requests, but {num_outcomes} outcomes")
    return {
        "schemaVersion": 1,
        "seed": seed,
        "seconds": lasted_s,
        "requests": load.num_asked,
        "outcomes": dict(sorted(load.codes.items())),
        "faults": dict(sorted(faults.counts.items())),
        "violations": violations,
    }


def find_leftovers(world: World) -> list[str]:
    """Return what is still there of what broke; things that go by themselves may take a while."""
    found = []
    for what, is_gone in {
        "temporary files": lambda: not partial_files(world),
        "leases": lambda: not world.land.leases(),
        "orphaned engines": lambda: not any(map(_is_alive, world.orphans)),
    }.items():
        try:
            wait(is_gone, what, limit_s=LEFT_LIMIT_S)
        except TimeoutError:
            found.append(f"{what} are left")
    found += find_damage(world)
    for index, address in enumerate(world.addresses):
        found += wait_for_truth(world, f"replica-{index}", address)
    return found


def wait_for_truth(world: World, name: str, address: str) -> list[str]:
    """Return what a replica still says wrongly after some beats: they come every two seconds."""
    deadline_s = time.monotonic() + TRUTH_LIMIT_S
    while (lies := find_lies(world, name, address)) and time.monotonic() < deadline_s:
        time.sleep(keys.HEARTBEAT_EVERY_S)
    return lies


def partial_files(world: World) -> list[Path]:
    """Return what is half written or half removed, and the folders of dead processes."""
    folders = [p for p in world.adapter_folder.glob(".work-*") if p.is_dir()]
    return [p for f in folders for p in f.iterdir()] + folders[NUM_REPLICAS:]


def find_damage(world: World) -> list[str]:
    """Return the artifacts on disk that are not what their manifest says."""
    found = []
    for folder in world.adapter_folder.iterdir():
        if len(folder.name) != len(hashlib.sha256().hexdigest()):
            continue
        data = (folder / artifacts.MANIFEST_FILE).read_bytes()
        manifest = artifacts.parse_manifest(data, expected_digest=folder.name)
        found += [
            f"{folder.name[:12]}/{file.path} is damaged on disk"
            for file in manifest.served_files
            if hashlib.sha256((folder / file.path).read_bytes()).hexdigest() != file.sha256
        ]
    return found


def find_lies(world: World, name: str, address: str) -> list[str]:
    """Return what a replica says of itself that is not so."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = inference_pb2_grpc.InferenceStub(channel)
        metadata = (("authorization", f"Bearer {TOKEN}"),)
        info = stub.GetServerInfo(
            inference_pb2.GetServerInfoRequest(), metadata=metadata, timeout=10
        )
    held = world.land.residency(name)
    beat = world.land.heartbeat(name)
    resident = {i for i, r in held.items() if r.tier == "slot"}
    checks = {
        "requests are running though nobody asks": info.queue_depth != 0,
        "its heartbeat has gone": beat is None,
        "its residency is not what it holds": resident != set(info.resident),
        "slots are lost": info.num_free_slots + len(info.resident) != NUM_SLOTS,
        "it rejects adapters": bool(info.rejected),
        "what it holds is not on its disk": not all(
            (world.adapter_folder / r.digest).is_dir() for r in held.values()
        ),
    }
    return [f"{name}: {what}" for what, is_so in checks.items() if is_so]


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def print_counts(document: dict[str, Any]) -> None:
    print(
        f"{document['requests']} requests in {document['seconds']:.0f} s, seed {document['seed']}"
    )
    for title in ("outcomes", "faults"):
        print(f"{title}:")
        for name, count in document[title].items():
            print(f"  {name:20} {count:6}")
    print(f"violations: {len(document['violations'])}")
    for violation in document["violations"]:
        print(f"  {violation}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long things break")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--folder", type=Path, help="where logs stay; else they go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loraland-chaos-") as name:
        folder = arguments.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        world = World(folder.resolve())
        try:
            world.start()
            document = asyncio.run(break_things(world, arguments.seconds, arguments.seed))
        finally:
            world.close()
    print_counts(document)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if document["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
