"""Who is around the operator while it is measured: pods that end at once, and a replica."""

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fakes"))

from loraland_core import artifacts, names
from loraland_core.artifacts import Result
from operator_world import World, path_of

SHARED_ARTIFACT = "shared"
LOOK_EVERY_S = 0.25


def play_pods(world: World, is_over: threading.Event) -> None:
    """End each Job's run as soon as the Job is there, with an artifact and a result."""
    manifest = world.upload_artifact(SHARED_ARTIFACT)
    played: set[str] = set()
    while not is_over.wait(LOOK_EVERY_S):
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
