"""What a person sees with the real kubectl: tables, stories, explanations."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import goldens
import pytest
from loraland_core import crds, names
from loraland_core.jobspec import TerminationMessage
from operator_objects import build_adapter_object, build_job_object
from operator_world import World, path_of, running_world, wait_for

JOBS, ADAPTERS = names.FINE_TUNE_JOBS, names.ADAPTERS
GOLDEN = Path(__file__).parent / "golden"
KUBECTL = Path(sys.executable).with_name("kubectl")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with a job and an Adapter of each sort that people ask about."""
    with running_world(Path(tmp_path_factory.mktemp("world"))) as found:
        found.start_operator()
        publish(found)
        hold_back(found)
        fail(found)
        found.create(build_job_object("asleep", suspend=True))
        found.wait_for_condition(JOBS, "asleep", "Suspended", "True/Suspended")
        found.create(build_job_object("unknown", baseModel="gpt-17"))
        found.wait_for_condition(JOBS, "unknown", "Accepted", "False/UnknownBaseModel")
        found.create(build_adapter_object("absent", source={"artifact": {"digest": "0" * 64}}))
        found.wait_for_condition(ADAPTERS, "absent", "ArtifactVerified", "False/ManifestMissing")
        yield found


def train(world: World, name: str, *, gate_passed: bool = True) -> None:
    world.create(build_job_object(name))
    job = world.wait_for_job(name)
    world.progress = {"step": 15, "totalSteps": 60, "loss": 0.5, "phase": "training"}
    world.start_pod(job, name=f"{name}-pod")
    world.wait_for_condition(JOBS, name, "Running", "True/Training")
    world.write_result(job, name, gate_passed=gate_passed)
    world.complete(job)
    world.wait_for_condition(JOBS, name, "Succeeded", "True/Completed")


def publish(world: World) -> None:
    """A job that ended well, and its Adapter that is served."""
    train(world, "published")
    world.wait_for_condition(ADAPTERS, "published", "Ready", "False/NoLiveReplica")
    # kubectl orders events by whole seconds.
    time.sleep(1)
    world.beat()
    world.wait_for_condition(ADAPTERS, "published", "Ready", "True/Serving")


def hold_back(world: World) -> None:
    train(world, "gated", gate_passed=False)


def fail(world: World) -> None:
    world.create(build_job_object("broken"))
    job = world.wait_for_job("broken")
    pod = world.start_pod(job, name="broken-pod")
    path = path_of(JOBS, "broken")
    wait_for(lambda: world.api.call("GET", path)["status"].get("progress"), "progress")
    said = TerminationMessage(reason="InvalidRow", message="row 7 is not JSON").to_json()
    world.fail(job, pod, 42, said)
    world.wait_for_condition(JOBS, "broken", "Succeeded", "False/InvalidRow")


def kubectl(world: World, *arguments: str) -> str:
    done = subprocess.run(
        [str(KUBECTL), *arguments],
        env={"KUBECONFIG": str(world.kubeconfig), "HOME": str(world.folder), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["ftj", "adp"])
def test_tables_answer_what_is_going_on(world: World, kind: str) -> None:
    """Phase and result at a glance; the reason, and where it came from, with -o wide."""
    tables = [kubectl(world, "get", kind), kubectl(world, "get", kind, "-o", "wide")]

    texts = [goldens.normalized(table, is_aligned=True) for table in tables]
    goldens.check(GOLDEN / f"get-{kind}.txt", "\n".join(texts))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ftj", "published"),
        ("ftj", "gated"),
        ("ftj", "broken"),
        ("ftj", "asleep"),
        ("ftj", "unknown"),
        ("adp", "published"),
        ("adp", "absent"),
    ],
)
def test_description_reads_like_a_story(world: World, kind: str, name: str) -> None:
    """What the status adds to the spec, and the events, each told once and in order."""
    described = re.sub(
        r"(?s)\nSpec:\n.*?\n(?=Status:\n)", "\n", kubectl(world, "describe", kind, name)
    )

    goldens.check(GOLDEN / f"describe-{kind}-{name}.txt", goldens.normalized(described))


@pytest.mark.parametrize("crd", crds.build_crds(), ids=lambda crd: crd["spec"]["names"]["plural"])
def test_kubectl_explains_spec_and_status(world: World, crd: dict[str, object]) -> None:
    """What the schema says of each field reaches whoever asks kubectl for it."""
    spec = crd["spec"]
    assert isinstance(spec, dict)
    explained = kubectl(world, "explain", spec["names"]["plural"], "--recursive=false")
    fields = {"spec", "status"}
    schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
    for field in sorted(fields):
        text = " ".join(kubectl(world, "explain", f"{spec['names']['plural']}.{field}").split())
        missing = [
            name
            for name, node in schema["properties"][field]["properties"].items()
            if " ".join(node["description"].split()) not in text
        ]

        assert missing == []
    assert fields <= set(explained.split())


def test_events_are_listed_with_their_object(world: World) -> None:
    """`kubectl events --for` finds the story of one object."""
    events = ("events", "--for", "finetunejob/broken")

    wait_for(lambda: "InvalidRow" in kubectl(world, *events), "the failure among the events")
