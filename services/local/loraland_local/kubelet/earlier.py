"""What an earlier kubelet left of a pod. Pure, no I/O.

No process outlives its kubelet. So a container that was started is lost: it is started again
where the pod's restart policy allows it, and otherwise counts as killed.
"""

import datetime as dt

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import attempt
from loraland_local.kubelet.status import ContainerRecord


def recall(pod: Object, now: dt.datetime) -> list[ContainerRecord]:
    """Return a record for each container, init containers first."""
    found = pod.get("status") or {}
    told = {
        entry["name"]: entry
        for field in ("initContainerStatuses", "containerStatuses")
        for entry in found.get(field) or []
    }
    spec = pod["spec"]
    policy = spec.get("restartPolicy", "Always")
    inits = [(container, True) for container in spec.get("initContainers") or []]
    mains = [(container, False) for container in spec["containers"]]
    records = []
    for container, is_init in [*inits, *mains]:
        record = ContainerRecord(
            name=container["name"],
            image=container["image"],
            is_init=is_init,
            is_sidecar=is_init and container.get("restartPolicy") == "Always",
        )
        if is_init and inits[0][0] is not container:
            record.state = {"waiting": {"reason": "PodInitializing"}}
        if inits and not is_init:
            record.state = {"waiting": {"reason": "PodInitializing"}}
        if container["name"] in told:
            _continue(record, told[container["name"]], policy, now)
        records.append(record)
    return records


def _continue(record: ContainerRecord, told: Object, policy: str, now: dt.datetime) -> None:
    record.restart_count = int(told.get("restartCount", 0))
    record.last_state = told.get("lastState") or {}
    if not told.get("containerID"):
        return
    record.container_id = told["containerID"]
    record.state = told.get("state") or {}
    if record.exit_code is None:
        record.state = _lost_state(record, now)
    if _restarts(record, policy):
        record.last_state = record.state
        record.state = {"waiting": {"reason": "ContainerCreating"}}
        record.container_id = ""
        record.restart_count += 1


def _restarts(record: ContainerRecord, policy: str) -> bool:
    if record.is_sidecar:
        return True
    if record.is_init and policy == "Always":
        policy = "OnFailure"
    return policy == "Always" or (policy == "OnFailure" and record.exit_code != 0)


def _lost_state(record: ContainerRecord, now: dt.datetime) -> Object:
    """Return the state of a container that ended while no kubelet looked after it."""
    running = record.state.get("running") or {}
    return attempt.build_terminated(
        137,
        message="The container could not be located when the kubelet started again",
        reason="ContainerStatusUnknown",
        started_at=running.get("startedAt"),
        finished_at=objects.format_time(now),
        container_id=record.container_id,
    )
