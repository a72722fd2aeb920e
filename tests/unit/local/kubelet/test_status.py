"""A pod's phase and conditions from its containers' states."""

import datetime as dt
from typing import Any

import pytest
from loraland_local.kubelet import status
from loraland_local.kubelet.status import ContainerRecord, PodFacts

Object = dict[str, Any]

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FACTS = PodFacts(pod_ip="127.77.1.1", host_ip="127.77.0.1", start_time=NOW)
OVER = PodFacts(pod_ip="", host_ip="127.77.0.1", start_time=NOW, is_over=True)
WAITING: Object = {"waiting": {"reason": "ContainerCreating"}}
RUNNING: Object = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def ended(code: int) -> Object:
    return {"terminated": {"exitCode": code}}


def record(state: Object, *, started: bool = True, **fields: Any) -> ContainerRecord:
    is_up = "running" in state
    return ContainerRecord(
        name=fields.pop("name", "c"),
        image="i",
        state=state,
        is_ready=fields.pop("is_ready", is_up),
        is_started=is_up,
        container_id="loraland://1" if started else "",
        **fields,
    )


def pod(policy: str, **spec: object) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"restartPolicy": policy, **spec}}


@pytest.mark.parametrize(
    ("policy", "records", "facts", "expected"),
    [
        pytest.param("Always", [record(WAITING, started=False)], FACTS, "Pending", id="waiting"),
        pytest.param("Always", [record(RUNNING)], FACTS, "Running", id="running"),
        pytest.param(
            "Always",
            [record(WAITING, started=False, last_state=ended(1))],
            FACTS,
            "Running",
            id="crash-loop",
        ),
        pytest.param("Always", [record(ended(0))], FACTS, "Running", id="will-restart"),
        pytest.param("OnFailure", [record(ended(1))], FACTS, "Running", id="will-retry"),
        pytest.param("OnFailure", [record(ended(0))], FACTS, "Succeeded", id="done"),
        pytest.param("Never", [record(ended(1))], FACTS, "Failed", id="failed"),
        pytest.param(
            "Never", [record(ended(1)), record(RUNNING)], FACTS, "Running", id="one-still-runs"
        ),
        pytest.param("Always", [record(ended(143))], OVER, "Failed", id="stopped-by-deletion"),
        pytest.param("Always", [record(ended(0))], OVER, "Succeeded", id="stopped-politely"),
        pytest.param(
            "Never",
            [record(ended(1), is_init=True), record(WAITING, started=False)],
            FACTS,
            "Failed",
            id="init-failed",
        ),
        pytest.param(
            "Always",
            [record(ended(1), is_init=True), record(WAITING, started=False)],
            FACTS,
            "Pending",
            id="init-is-retried",
        ),
        pytest.param(
            "Never",
            [record(RUNNING, is_init=True, is_sidecar=True), record(ended(0))],
            FACTS,
            "Running",
            id="sidecar-still-runs",
        ),
    ],
)
def test_phase_follows_containers(
    policy: str, records: list[ContainerRecord], facts: PodFacts, expected: str
) -> None:
    """The phase is what the real kubelet would say."""
    assert status.find_phase(pod(policy), records, facts) == expected


def conditions(built: Object) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in built["conditions"]}


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        pytest.param([record(RUNNING)], ("True", ""), id="ready"),
        pytest.param(
            [record(RUNNING, is_ready=False)], ("False", "ContainersNotReady"), id="unready"
        ),
        pytest.param([record(ended(0))], ("False", "PodCompleted"), id="succeeded"),
        pytest.param([record(ended(1))], ("False", "PodFailed"), id="failed"),
    ],
)
def test_ready_says_why_not(records: list[ContainerRecord], expected: tuple[str, str]) -> None:
    """Ready is true only while all containers are, and has a reason otherwise."""
    built = status.build(pod("Never"), records, FACTS, NOW)

    assert conditions(built)["Ready"] == expected


def test_readiness_gate_holds_ready_back() -> None:
    """A pod with a readiness gate is ready when somebody has set its condition."""
    gated = pod("Always", readinessGates=[{"conditionType": "Warm"}])
    before = conditions(status.build(gated, [record(RUNNING)], FACTS, NOW))
    gated["status"] = {"conditions": [{"type": "Warm", "status": "True"}]}
    after = conditions(status.build(gated, [record(RUNNING)], FACTS, NOW))

    assert before["Ready"] == ("False", "ReadinessGatesNotReady")
    assert (after["Ready"], after["Warm"]) == (("True", ""), ("True", ""))


def test_status_settles() -> None:
    """The same states give the same status, later as well, so that nothing is written again."""
    first = status.build(pod("Always"), [record(RUNNING)], FACTS, NOW)
    again = {**pod("Always"), "status": first}
    later = NOW + dt.timedelta(hours=1)

    assert status.build(again, [record(RUNNING)], FACTS, later) == first
