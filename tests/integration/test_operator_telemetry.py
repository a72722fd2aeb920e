"""What collectors get: JSON lines that name their object, and metrics that say how things stand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from loraland_core import names
from operator_objects import build_adapter_object, build_job_object
from operator_world import World, path_of, running_world, wait_for

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which a job was published and is served, one waits, and one Adapter is refused."""
    with running_world(Path(tmp_path_factory.mktemp("world"))) as found:
        found.environment["LORALAND_LOG_FORMAT"] = "json"
        found.environment["LORALAND_LOG_LEVEL"] = "INFO"
        found.start_operator()
        found.create(build_job_object("tickets"))
        job = found.wait_for_job("tickets")
        found.start_pod(job)
        found.write_result(job, "tickets")
        found.complete(job)
        wait_for(lambda: found.record("default/tickets"), "the record")
        found.beat()
        found.wait_for_condition(ADAPTERS, "tickets", "Ready", "True/Serving")
        found.create(build_job_object("waiting"))
        found.wait_for_condition(JOBS, "waiting", "Accepted", "True/SpecAccepted")
        found.create(build_adapter_object("absent", source={"artifact": {"digest": "0" * 64}}))
        found.wait_for_condition(ADAPTERS, "absent", "ArtifactVerified", "False/ManifestMissing")
        yield found


def lines(world: World) -> list[dict[str, Any]]:
    """Return all that was logged; fails where a line is no JSON object."""
    # The last line may be half written.
    whole, _, _ = world.log().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def scrape(world: World) -> dict[str, float]:
    port = world.environment["LORALAND_METRICS_PORT"]
    pool = urllib3.PoolManager(retries=False)
    text = pool.request("GET", f"http://127.0.0.1:{port}/metrics", timeout=10).data.decode()
    pool.clear()
    samples = re.findall(r"^(loraland_\S+) (\S+)$", text, flags=re.MULTILINE)
    return {name: float(value) for name, value in samples}


def test_lines_name_their_object(world: World) -> None:
    """Whoever filters by an object finds its story, with the uid that tells it from a namesake."""
    job = world.api.call("GET", path_of(JOBS, "tickets"))
    reference = {
        "apiVersion": names.API_VERSION,
        "kind": names.FINE_TUNE_JOB,
        "namespace": "default",
        "name": "tickets",
        "uid": job["metadata"]["uid"],
    }
    told = [line for line in lines(world) if line.get("object") == reference]

    assert {"SpecAccepted", "Completed"} <= {
        reason for line in told for reason in re.findall(r"tickets (\w+):", line["message"])
    }
    assert all(isinstance(line["reconcile"], int) for line in told)


def test_lines_of_one_look_share_its_number(world: World) -> None:
    """A number belongs to one look at one object."""
    numbered = [line for line in lines(world) if "reconcile" in line]
    owners = {(line["reconcile"], line["object"]["name"]) for line in numbered}

    assert len(owners) == len({number for number, _ in owners}) > 0


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ('loraland_operator_jobs{phase="Succeeded"}', 1.0),
        ('loraland_operator_jobs{phase="Pending"}', 1.0),
        ('loraland_operator_jobs{phase="Failed"}', 0.0),
        ('loraland_operator_adapters{phase="Ready"}', 1.0),
        ('loraland_operator_adapters{phase="Rejected"}', 1.0),
        ('loraland_operator_ready_seconds_count{kind="FineTuneJob"}', 1.0),
        ("loraland_operator_leading", 1.0),
    ],
)
def test_scrape_tells_how_things_stand(world: World, sample: str, expected: float) -> None:
    """Objects by phase, who leads, and one wait from apply to ready."""
    wait_for(lambda: scrape(world).get(sample) == expected, f"{sample} {expected}")


def test_scrape_has_what_alerts_and_dashboards_ask_for(world: World) -> None:
    """Work, its time, its failures and what waits."""
    found = scrape(world)

    assert found['loraland_operator_reconciles_total{kind="Adapter"}'] > 0
    assert found['loraland_operator_reconcile_seconds_count{kind="FineTuneJob"}'] > 0
    assert found['loraland_operator_ready_seconds_sum{kind="FineTuneJob"}'] >= 0
    assert "loraland_operator_queue_length" in found
