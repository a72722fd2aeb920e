"""The operator under exactly the rights of the chart's rules, on whatever API server there is.

With ``KUBEBUILDER_ASSETS`` that is an etcd and kube-apiserver started for it, with
``LORALAND_E2E_KUBECONFIG`` a server without controllers that runs already, else the embedded one.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import api_servers
import kube_api
import pytest
from loraland_core import names
from operator_objects import build_job_object
from operator_world import World, path_of, running_world, wait_for

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS


@pytest.fixture
def given_server(tmp_path: Path) -> Iterator[Path]:
    """A server that somebody else runs, by its kubeconfig."""
    with api_servers.api_process(tmp_path / "given") as kubeconfig:
        yield kubeconfig


def play(world: World) -> None:
    """From apply to the end: trained, published, served, deleted with all files."""
    world.start_operator()
    output = {"adapter": {"deletionPolicy": "Delete"}}
    world.create(build_job_object("story", output=output))
    job = world.wait_for_job("story")
    world.start_pod(job)
    world.wait_for_condition(JOBS, "story", "Running", "True/Training")
    world.write_result(job, "story")
    world.complete(job)
    world.wait_for_condition(JOBS, "story", "Succeeded", "True/Completed")
    wait_for(lambda: world.record("default/story"), "the record")
    world.beat()
    world.wait_for_condition(ADAPTERS, "story", "Ready", "True/Serving")
    world.delete(ADAPTERS, "story")
    wait_for(lambda: world.api.find(path_of(ADAPTERS, "story")) is None, "the Adapter's end")


def test_rules_of_the_chart_suffice(tmp_path: Path) -> None:
    """Nothing that the operator does on its way is refused for want of rights."""
    with running_world(tmp_path) as world:
        play(world)
        told = world.events_of("FineTuneJob", "story")

        assert told[-3:] == ["ArtifactUploaded", "Published", "Completed"]
        assert "forbidden" not in world.log().lower()


def test_given_server_is_used_and_left_as_it_was(
    tmp_path: Path, given_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubeconfig is enough; what the run made in the namespace is gone afterwards."""
    monkeypatch.setenv(kube_api.KUBECONFIG_VARIABLE, str(given_server))
    with running_world(tmp_path) as world:
        play(world)
        assert world.kubeconfig == given_server
    api = kube_api.connect(given_server, tmp_path)
    left = [
        obj["metadata"]["name"]
        for plural in (JOBS, ADAPTERS, "jobs", "pods", "leases")
        for obj in api.list(path_of(plural))
    ]
    api.pool.clear()

    assert left == []


def test_assets_without_binaries_are_named(tmp_path: Path) -> None:
    """A wrong folder is a sentence, not a stack that waits for ever."""
    program = "import kube_api, pathlib; kube_api.running_api(pathlib.Path('.')).__enter__()"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "KUBEBUILDER_ASSETS": str(tmp_path),
            "PYTHONPATH": str(Path(kube_api.__file__).parent),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert "KUBEBUILDER_ASSETS: " in found.stderr
    assert "no etcd and no kube-apiserver" in found.stderr
