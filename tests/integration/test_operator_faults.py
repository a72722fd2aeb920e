"""The operator behind an API server that refuses, loses, delays or is away; and without S3 or Redis."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty_api import READS, WRITES, Fault, FaultyApi
from faulty_proxy import FaultyProxy
from loraland_core import artifacts, names
from loraland_core.artifacts import Result
from operator_objects import build_job_object
from operator_world import World, path_of, running_world, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS
EXIT_LOST = 3
# Waits of the operator's own come on top: it backs off, and a stream begins anew after seconds.
LIMIT_S = 180.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(Path(tmp_path_factory.mktemp("world"))) as found:
        yield found


@pytest.fixture(scope="module")
def api(world: World) -> Iterator[FaultyApi]:
    kubeconfig = Path(world.environment["KUBECONFIG"])
    with FaultyApi(kubeconfig).serving() as proxy:
        proxy.write_kubeconfig(kubeconfig)
        yield proxy


@pytest.fixture(autouse=True)
def _end(world: World, api: FaultyApi) -> Iterator[None]:
    yield
    api.set_fault(None)
    world.kill_operator()


def begin(world: World, name: str) -> None:
    """Apply a job whose Adapter takes its files along."""
    output = {"adapter": {"deletionPolicy": "Delete"}}
    world.create(build_job_object(name, output=output))


def is_like(world: World, plural: str, name: str, type_: str, wanted: str) -> None:
    wait_for(
        lambda: world.condition(plural, name, type_) == wanted,
        f"{type_} {wanted} of {name}: {world.condition(plural, name, type_)}",
        limit_s=LIMIT_S,
    )


def run(world: World, name: str) -> Result:
    """Play the pod's part, from its start to the end of its Job."""
    job = wait_for(lambda: world.api.find(path_of("jobs", name)), "the Job", limit_s=LIMIT_S)
    world.start_pod(job)
    is_like(world, JOBS, name, "Running", "True/Training")
    result = world.write_result(job, name)
    world.complete(job)
    return result


def finish(world: World, name: str, result: Result) -> None:
    """See the job published and served, then its Adapter deleted with its files."""
    is_like(world, JOBS, name, "Succeeded", "True/Completed")
    wait_for(lambda: world.record(f"default/{name}"), "the record", limit_s=LIMIT_S)
    world.beat()
    is_like(world, ADAPTERS, name, "Ready", "True/Serving")
    status = world.api.call("GET", path_of(JOBS, name))["status"]
    jobs = [j["metadata"]["name"] for j in world.api.list(path_of("jobs"))]
    assert (status["artifact"]["digest"], status["adapterRef"]["name"]) == (result.digest, name)
    assert jobs.count(name) == 1
    remove(world, name, result)


def remove(world: World, name: str, result: Result) -> None:
    world.delete(ADAPTERS, name)
    is_gone(world, name, result)


def is_gone(world: World, name: str, result: Result) -> None:
    """No finalizer holds the Adapter, and nothing of it is left."""
    path = path_of(ADAPTERS, name)
    wait_for(lambda: world.api.find(path) is None, "the Adapter's end", limit_s=LIMIT_S)
    prefix = artifacts.adapter_prefix("default", name, result.digest)
    assert (list(world.store.find_objects(prefix)), world.record(f"default/{name}")) == ([], None)


FAULTS = [
    pytest.param(Fault("answer", 409, WRITES, times=1), id="409-conflict"),
    pytest.param(Fault("answer", 410, READS, times=1), id="410-gone"),
    pytest.param(Fault("answer", 429, times=1), id="429-too-many"),
    pytest.param(Fault("answer", 500, times=1), id="500-broken"),
    pytest.param(Fault("lost", methods=WRITES, times=1), id="done-but-answer-lost"),
    pytest.param(Fault("slow", times=1, delay_s=0.7), id="slow"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_job_and_adapter_converge(
    world: World, api: FaultyApi, request: pytest.FixtureRequest, fault: Fault
) -> None:
    """Whatever the API server answers at first: one run, one Adapter, the whole status, no rest."""
    name = f"f{request.node.callspec.id}"
    api.set_fault(fault)
    with world.kept_operator():
        begin(world, name)
        finish(world, name, run(world, name))

    assert api.num_struck > 3


def test_short_absence_of_the_api_server_is_bridged(world: World, api: FaultyApi) -> None:
    """Cut streams and refused requests leave the leader leading, and nothing is missed."""
    world.start_operator()
    begin(world, "bridged")
    job = world.wait_for_job("bridged")
    with api.down():
        world.start_pod(job)
        result = world.write_result(job, "bridged")
        world.complete(job)
    finish(world, "bridged", result)


def test_long_absence_of_the_api_server_ends_the_leader(world: World, api: FaultyApi) -> None:
    """One that cannot renew its Lease ends; the next one goes on where things stand."""
    world.start_operator()
    begin(world, "outlasted")
    job = world.wait_for_job("outlasted")
    with api.down():
        assert world.wait_for_operator() == EXIT_LOST
        world.start_pod(job)
        result = world.write_result(job, "outlasted")
        world.complete(job)
        world.start_operator()
    finish(world, "outlasted", result)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for as long as the block lasts: connections stay, nothing is answered."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("api")
def test_silent_redis_delays_and_loses_nothing(world: World) -> None:
    """A job publishes meanwhile; records and a deletion follow when Redis answers again."""
    world.start_operator()
    begin(world, "before")
    before = run(world, "before")
    wait_for(lambda: world.record("default/before"), "the record", limit_s=LIMIT_S)
    begin(world, "during")
    with frozen(world.redis.info("server")["process_id"]):
        during = run(world, "during")
        is_like(world, JOBS, "during", "AdapterPublished", "True/Published")
        world.delete(ADAPTERS, "before")
        is_like(world, ADAPTERS, "before", "Registered", "Unknown/RegistryUnreachable")
    is_gone(world, "before", before)
    finish(world, "during", during)


@pytest.mark.usefixtures("api")
def test_absent_store_delays_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended waits for its result, what is deleted for its files; both are told."""
    endpoint = world.environment["LORALAND_STORE_ENDPOINT_URL"]
    proxy = FaultyProxy(int(endpoint.rpartition(":")[2]))
    monkeypatch.setitem(world.environment, "LORALAND_STORE_ENDPOINT_URL", proxy.url)
    try:
        world.start_operator()
        begin(world, "stored")
        stored = run(world, "stored")
        wait_for(lambda: world.record("default/stored"), "the record", limit_s=LIMIT_S)
        begin(world, "unstored")
        with proxy.down():
            result = run(world, "unstored")
            is_like(world, JOBS, "unstored", "Uploaded", "Unknown/ArtifactStoreUnreachable")
            world.delete(ADAPTERS, "stored")
            is_like(world, ADAPTERS, "stored", "Registered", "Unknown/ArtifactStoreUnreachable")
        is_gone(world, "stored", stored)
        finish(world, "unstored", result)
        world.kill_operator()
    finally:
        proxy.stop()
