"""A pod's status from the states of its containers. Pure, no I/O."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object

_WORDS = ("reason", "message")


@dataclasses.dataclass
class ContainerRecord:
    """What the kubelet knows of one container; written by the container, read for the status."""

    name: str
    image: str
    is_init: bool = False
    is_sidecar: bool = False
    state: Object = dataclasses.field(
        default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}}
    )
    last_state: Object = dataclasses.field(default_factory=dict)
    is_ready: bool = False
    is_started: bool = False
    restart_count: int = 0
    container_id: str = ""

    @property
    def exit_code(self) -> int | None:
        terminated = self.state.get("terminated")
        return None if terminated is None else int(terminated["exitCode"])

    @property
    def was_started(self) -> bool:
        return bool(self.container_id)


@dataclasses.dataclass(frozen=True)
class PodFacts:
    """What is known of a pod as a whole."""

    pod_ip: str
    host_ip: str
    start_time: dt.datetime
    is_set_up: bool = True
    is_over: bool = False
    """No container will be started any more."""
    failure: tuple[str, str] | None = None
    """Reason and message when the kubelet itself ended the pod."""


def build(
    pod: Object, records: Sequence[ContainerRecord], facts: PodFacts, now: dt.datetime
) -> Object:
    """Return the whole status; conditions of others are kept."""
    before = pod.get("status") or {}
    phase = find_phase(pod, records, facts)
    status: Object = {
        "phase": phase,
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "startTime": objects.format_time(facts.start_time),
        "conditions": _build_conditions(pod, records, facts, phase, now),
        "containerStatuses": [_build_container(r) for r in records if not r.is_init],
    }
    if facts.pod_ip:
        status["podIP"] = facts.pod_ip
        status["podIPs"] = [{"ip": facts.pod_ip}]
    init_statuses = [_build_container(record) for record in records if record.is_init]
    if init_statuses:
        status["initContainerStatuses"] = init_statuses
    if "qosClass" in before:
        status["qosClass"] = before["qosClass"]
    if facts.failure is not None:
        status["reason"], status["message"] = facts.failure
    generation = objects.metadata(pod).get("generation")
    if generation is not None:
        status["observedGeneration"] = generation
    return status


def find_phase(pod: Object, records: Sequence[ContainerRecord], facts: PodFacts) -> str:
    """Return the phase by the rules of the real kubelet."""
    phase = _find_phase(pod, records, facts)
    if phase in {"Succeeded", "Failed"} and any("running" in record.state for record in records):
        # No pod has ended while something of it still runs, a sidecar for example.
        return "Running"
    return phase


def _find_phase(pod: Object, records: Sequence[ContainerRecord], facts: PodFacts) -> str:
    if facts.failure is not None:
        return "Failed"
    policy = pod["spec"].get("restartPolicy", "Always")
    mains = [record for record in records if not record.is_init]
    if facts.is_over and all(
        record.exit_code is not None for record in mains if record.was_started
    ):
        ended_well = all(record.exit_code == 0 for record in mains)
        return "Succeeded" if ended_well else "Failed"
    for record in records:
        if record.is_init and not is_initialized(record):
            failed = record.exit_code not in (None, 0)
            return "Failed" if failed and policy == "Never" else "Pending"
    if not any(record.was_started or record.last_state for record in mains):
        return "Pending"
    return _phase_of_started(policy, [record.exit_code for record in mains])


def _phase_of_started(policy: str, exit_codes: Sequence[int | None]) -> str:
    if policy != "Always" and all(code == 0 for code in exit_codes):
        return "Succeeded"
    if policy == "Never" and all(code is not None for code in exit_codes):
        return "Failed"
    return "Running"


def is_initialized(record: ContainerRecord) -> bool:
    """Say whether the containers after this init container may start."""
    return record.is_started if record.is_sidecar else record.exit_code == 0


def _build_container(record: ContainerRecord) -> Object:
    is_running = "running" in record.state
    return {
        "name": record.name,
        "image": record.image,
        "imageID": f"local://{record.image}" if record.was_started else "",
        "containerID": record.container_id,
        "state": record.state,
        "lastState": record.last_state,
        "ready": record.is_ready if is_running or record.is_init else False,
        "started": record.is_started and is_running,
        "restartCount": record.restart_count,
    }


def _build_conditions(
    pod: Object,
    records: Sequence[ContainerRecord],
    facts: PodFacts,
    phase: str,
    now: dt.datetime,
) -> list[Object]:
    conditions: list[Object] = list((pod.get("status") or {}).get("conditions") or [])
    is_ended = phase in {"Succeeded", "Failed"}
    is_networked = facts.is_set_up and not is_ended
    conditions = _set(conditions, "PodReadyToStartContainers", is_networked, now)
    waiting = [r.name for r in records if r.is_init and not is_initialized(r)]
    if waiting and not is_ended:
        message = f"containers with incomplete status: [{' '.join(waiting)}]"
        conditions = _set(
            conditions,
            "Initialized",
            False,
            now,
            reason="ContainersNotInitialized",
            message=message,
        )
    else:
        conditions = _set(conditions, "Initialized", not waiting, now)
    unready = [r.name for r in records if _must_be_ready(r) and not _is_ready(r)]
    for kind in ("Ready", "ContainersReady"):
        conditions = _set_ready(conditions, kind, phase=phase, unready=unready, pod=pod, now=now)
    return _set(conditions, "PodScheduled", True, now)


def _must_be_ready(record: ContainerRecord) -> bool:
    return not record.is_init or record.is_sidecar


def _is_ready(record: ContainerRecord) -> bool:
    return record.is_ready and "running" in record.state


def _set_ready(
    conditions: list[Object],
    kind: str,
    *,
    phase: str,
    unready: list[str],
    pod: Object,
    now: dt.datetime,
) -> list[Object]:
    if phase == "Succeeded":
        return _set(conditions, kind, False, now, reason="PodCompleted")
    if phase == "Failed":
        return _set(conditions, kind, False, now, reason="PodFailed")
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return _set(conditions, kind, False, now, reason="ContainersNotReady", message=message)
    if kind == "Ready":
        for gate in pod["spec"].get("readinessGates") or []:
            if not objects.is_condition_true(pod, gate["conditionType"]):
                message = (
                    f'corresponding condition of pod readiness gate "{gate["conditionType"]}" '
                    'is not "True"'
                )
                return _set(
                    conditions, kind, False, now, reason="ReadinessGatesNotReady", message=message
                )
    return _set(conditions, kind, phase == "Running", now)


def _set(
    conditions: list[Object],
    kind: str,
    is_true: bool,
    now: dt.datetime,
    **words: str,
) -> list[Object]:
    kept = [
        {k: v for k, v in found.items() if found["type"] != kind or k not in _WORDS}
        for found in conditions
    ]
    return objects.with_condition(
        kept,
        kind,
        "True" if is_true else "False",
        now=now,
        **words,
    )
