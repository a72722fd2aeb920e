"""The operator killed at any moment, and the outside systems taken away from it."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loraland_core import artifacts, keys, names
from operator_objects import BASE, build_adapter_object, build_job_object
from operator_world import World, path_of, running_world, wait_for

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS
STORY = ["SpecAccepted", "Training", "ArtifactUploaded", "Published", "Completed"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(Path(tmp_path_factory.mktemp("world"))) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_operator_left(world: World) -> Iterator[None]:
    yield
    world.kill_operator()


# Each takes the world one step on, as the controllers, the kubelet and the trainer would.
def start(world: World, name: str) -> None:
    world.start_pod(world.wait_for_job(name))


def upload(world: World, name: str) -> None:
    world.write_result(world.wait_for_job(name), name)


def complete(world: World, name: str) -> None:
    world.complete(world.wait_for_job(name))


STEPS: list[Callable[[World, str], None]] = [start, upload, complete]


@pytest.mark.parametrize("killed_before", range(len(STEPS) + 1))
@pytest.mark.parametrize("is_away", [True, False], ids=["away-meanwhile", "back-at-once"])
def test_kill_between_steps_changes_nothing(
    world: World, killed_before: int, is_away: bool
) -> None:
    """Killed at a station, back at once or only when all is over: one Job, one Adapter, one end."""
    name = f"kill-{killed_before}-{'away' if is_away else 'back'}"
    world.start_operator()
    world.create(build_job_object(name))
    uid = world.wait_for_job(name)["metadata"]["uid"]
    for i, step in enumerate(STEPS):
        if i == killed_before:
            world.kill_operator()
            if not is_away:
                world.start_operator()
        step(world, name)
    if killed_before == len(STEPS):
        world.kill_operator()
        is_away = True
    if is_away:
        world.start_operator()
    world.wait_for_condition(JOBS, name, "Succeeded", "True/Completed")

    assert uid == world.wait_for_job(name)["metadata"]["uid"]
    assert world.condition(JOBS, name, "AdapterPublished") == "True/Published"
    assert world.api.find(path_of(ADAPTERS, name)) is not None


def torment(world: World, is_done: threading.Event) -> None:
    """Start the operator and kill it a little later than the last time, again and again."""
    alive_s = 0.0
    while not is_done.is_set():
        num_lives = world.log().count("publishing the registry")
        world.start_operator()
        wait_for(lambda n=num_lives: world.log().count("publishing the registry") > n, "a start")  # type: ignore[misc]
        is_done.wait(alive_s)
        world.kill_operator()
        alive_s += 0.01


@pytest.mark.slow
def test_kill_again_and_again_changes_nothing(world: World) -> None:
    """Kills all over the first moments of its lives, in the middle of whatever goes on."""
    name = "restless"
    is_done = threading.Event()
    thread = threading.Thread(target=torment, args=(world, is_done))
    thread.start()
    try:
        world.create(build_job_object(name))
        for step in STEPS:
            step(world, name)
        world.wait_for_condition(JOBS, name, "Succeeded", "True/Completed")
        wait_for(lambda: world.record(f"default/{name}"), "a record")
    finally:
        is_done.set()
        thread.join(timeout=60)
    world.start_operator()
    world.beat()
    world.wait_for_condition(ADAPTERS, name, "Ready", "True/Serving")

    jobs = [j["metadata"]["name"] for j in world.api.list(path_of("jobs"))]
    assert jobs.count(name) == 1
    # One that was posted again with another message stands twice.
    told = list(dict.fromkeys(world.events_of("FineTuneJob", name)))
    assert told == [reason for reason in STORY if reason in told]
    assert told[-3:] == STORY[-3:]


def test_result_counts_though_the_job_is_gone(world: World) -> None:
    """An operator that was away finds the result of a Job that a TTL removed."""
    world.start_operator()
    world.create(build_job_object("vanished"))
    start(world, "vanished")
    world.wait_for_condition(JOBS, "vanished", "Running", "True/Training")
    world.kill_operator()
    upload(world, "vanished")
    world.delete("jobs", "vanished")
    world.start_operator()
    world.wait_for_condition(JOBS, "vanished", "AdapterPublished", "True/Published")

    assert world.api.find(path_of("jobs", "vanished")) is None


def test_job_removed_under_way_is_lost_not_repeated(world: World) -> None:
    """Without a result a vanished Job is a failure; training anew is somebody's decision."""
    world.start_operator()
    world.create(build_job_object("lost"))
    start(world, "lost")
    world.wait_for_condition(JOBS, "lost", "Running", "True/Training")
    world.delete("jobs", "lost")
    world.wait_for_condition(JOBS, "lost", "Succeeded", "False/JobLost")

    assert world.api.find(path_of("jobs", "lost")) is None


def test_ended_job_is_not_run_again_after_a_restart(world: World) -> None:
    """A terminal condition is the end, also for an operator that never saw the Job."""
    world.start_operator()
    world.create(build_job_object("once"))
    for step in STEPS:
        step(world, "once")
    world.wait_for_condition(JOBS, "once", "Succeeded", "True/Completed")
    world.kill_operator()
    world.delete("jobs", "once")
    world.start_operator()
    wait_for(lambda: world.create(build_job_object("after-once")), "a later job")
    world.wait_for_job("after-once")

    assert world.api.find(path_of("jobs", "once")) is None


def test_deletion_survives_a_kill(world: World) -> None:
    """A finalizer that met no operator is worked off by the next one."""
    world.start_operator()
    digest = world.upload_artifact("leaving").digest
    spec: dict[str, Any] = {"source": {"artifact": {"digest": digest}}, "deletionPolicy": "Delete"}
    world.create(build_adapter_object("leaving", **spec))
    wait_for(lambda: world.record("default/leaving"), "record")
    world.kill_operator()
    world.delete(ADAPTERS, "leaving")
    world.start_operator()
    wait_for(lambda: world.api.find(path_of(ADAPTERS, "leaving")) is None, "Adapter gone")

    assert world.record("default/leaving") is None
    assert not world.store.exists(
        artifacts.adapter_prefix("default", "leaving", digest) + artifacts.MANIFEST_FILE
    )


def test_operator_stops_when_told(world: World) -> None:
    """SIGTERM ends it in good time and without a traceback."""
    world.start_operator()
    world.create(build_job_object("last"))
    world.wait_for_job("last")
    start_s = time.monotonic()
    code = world.stop_operator()

    assert code == 0
    assert time.monotonic() - start_s < 10
    assert "Traceback" not in world.log()
    assert "Warning" not in world.log()


@pytest.mark.slow
def test_redis_outage_is_told_and_healed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is away conditions say so, a deletion waits; back, all is made good."""
    digest = world.upload_artifact("patient").digest
    source = {"artifact": {"digest": digest, "name": "patient"}}
    for name in ("patient", "goner"):
        world.create(build_adapter_object(name, source=source))
    world.start_operator()
    wait_for(lambda: world.record("default/goner"), "record")
    world.kill_operator()
    world.delete(ADAPTERS, "goner")
    monkeypatch.setitem(world.environment, "LORALAND_REDIS_URL", "redis://127.0.0.1:1/0")
    world.start_operator()
    for name in ("patient", "goner"):
        world.wait_for_condition(ADAPTERS, name, "Registered", "Unknown/RegistryUnreachable")
    world.kill_operator()
    monkeypatch.undo()
    world.redis.flushall()
    world.start_operator()
    world.wait_for_condition(ADAPTERS, "patient", "Registered", "True/RecordWritten")
    wait_for(lambda: world.api.find(path_of(ADAPTERS, "goner")) is None, "Adapter gone")

    assert world.redis.exists(keys.epoch(BASE))
    assert world.record("default/goner") is None


def test_store_outage_is_told_and_healed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ended while S3 was away is neither failed nor forgotten."""
    monkeypatch.setitem(world.environment, "LORALAND_STORE_ENDPOINT_URL", "http://127.0.0.1:1")
    world.start_operator()
    world.create(build_job_object("stranded"))
    for step in STEPS:
        step(world, "stranded")
    world.wait_for_condition(JOBS, "stranded", "Uploaded", "Unknown/ArtifactStoreUnreachable")
    world.kill_operator()
    monkeypatch.undo()
    world.start_operator()
    world.wait_for_condition(JOBS, "stranded", "AdapterPublished", "True/Published")


def test_taken_port_is_a_sentence(world: World) -> None:
    """Two operators on one address: the second one says what is wrong and ends."""
    port = int(world.environment["LORALAND_METRICS_PORT"])
    world.start_operator()
    wait_for(lambda: _is_open(port), "an operator that has its ports")
    second = subprocess.run(
        [sys.executable, "-m", "loraland_operator"],
        env=world.environment,
        capture_output=True,
        timeout=100,
        check=False,
    )

    assert second.returncode == 1
    assert b"address already in use" in second.stderr.lower()
    assert b"Traceback" not in second.stderr


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
