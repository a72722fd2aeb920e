"""A pod's status in one word, as `kubectl get pods` shows it. No I/O."""

from __future__ import annotations

from typing import Any

from . import clock

Json = dict[str, Any]


def _statuses(obj: Json, name: str = "containerStatuses") -> list[Json]:
    return (obj.get("status") or {}).get(name) or []


def ready_text(obj: Json) -> str:
    total = len(obj["spec"].get("containers") or [])
    ready = sum(
        bool(status.get("ready")) and "running" in (status.get("state") or {})
        for status in _statuses(obj)
    )
    return f"{ready}/{total}"


def restarts(obj: Json) -> str:
    statuses = _statuses(obj)
    count = sum(status.get("restartCount", 0) for status in statuses)
    if not count:
        return "0"
    ends = [
        (status.get("lastState") or {}).get("terminated", {}).get("finishedAt")
        for status in statuses
    ]
    last = max((end for end in ends if end), default=None)
    return f"{count} ({clock.age(last)} ago)" if last else str(count)


def readiness_gates(obj: Json) -> str:
    gates = obj["spec"].get("readinessGates") or []
    if not gates:
        return "<none>"
    conditions = (obj.get("status") or {}).get("conditions") or []
    true = {c["type"] for c in conditions if c.get("status") == "True"}
    return f"{sum(gate['conditionType'] in true for gate in gates)}/{len(gates)}"


def _ended(state: Json) -> str:
    if state.get("reason"):
        return str(state["reason"])
    if state.get("signal"):
        return f"Signal:{state['signal']}"
    return f"ExitCode:{state.get('exitCode', 0)}"


def _init_reason(obj: Json) -> str | None:
    total = len(obj["spec"].get("initContainers") or [])
    for index, status in enumerate(_statuses(obj, "initContainerStatuses")):
        state = status.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended is not None and ended.get("exitCode", 0) == 0:
            continue
        if status.get("started") and status.get("ready"):
            continue
        if ended is not None:
            return f"Init:{_ended(ended)}"
        if waiting and waiting.get("reason") not in {None, "", "PodInitializing"}:
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return None


def reason(obj: Json) -> str:
    """Return the status column's text."""
    status = obj.get("status") or {}
    found = str(status.get("reason") or status.get("phase") or "Unknown")
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            found = "SchedulingGated"
    found = _init_reason(obj) or _container_reason(obj, found)
    if obj["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in {"Succeeded", "Failed"}:
            return "Terminating"
    return found


def _container_reason(obj: Json, found: str) -> str:
    has_running = False
    for status in reversed(_statuses(obj)):
        state = status.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            found = state["waiting"]["reason"]
        elif "terminated" in state:
            found = _ended(state["terminated"])
        elif status.get("ready") and "running" in state:
            has_running = True
    if found == "Completed" and has_running:
        conditions = (obj.get("status") or {}).get("conditions") or []
        ready = any(c["type"] == "Ready" and c.get("status") == "True" for c in conditions)
        return "Running" if ready else "NotReady"
    return found
