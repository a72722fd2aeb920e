"""Conditions of a custom resource's status, as the Kubernetes API conventions want them. Pure."""

from datetime import UTC, datetime
from typing import Literal

from loraland_core.resources import Condition

Status = Literal["True", "False", "Unknown"]
MAX_MESSAGE_LENGTH = 32768


def timestamp(now: datetime) -> str:
    """Return ``now`` as Kubernetes writes times: UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def find_condition(conditions: list[Condition], type_: str) -> Condition | None:
    return next((c for c in conditions if c.type == type_), None)


def is_true(conditions: list[Condition], type_: str) -> bool:
    condition = find_condition(conditions, type_)
    return condition is not None and condition.status == "True"


def set_condition(
    conditions: list[Condition],
    type_: str,
    status: Status,
    *,
    reason: str,
    message: str = "",
    now: datetime,
    observed_generation: int,
) -> list[Condition]:
    """Return the conditions with one of them set; its time moves only when its status does."""
    before = find_condition(conditions, type_)
    moved = before is None or before.status != status
    condition = Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message[:MAX_MESSAGE_LENGTH],
        observed_generation=observed_generation,
        last_transition_time=timestamp(now)
        if moved or before is None
        else before.last_transition_time,
    )
    if before is None:
        return [*conditions, condition]
    return [condition if c.type == type_ else c for c in conditions]
