"""A status in the making: starts from the one that is there, ends as the one to write. Pure."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from loraland_core import conditions
from loraland_core.conditions import Status
from loraland_core.names import Phase, Reason
from loraland_core.resources import AdapterStatus, Condition, FineTuneJobStatus

from loraland_operator.plan.steps import Note

S = TypeVar("S", FineTuneJobStatus, AdapterStatus)

MAX_REASON_LENGTH = 64
# Far below the API's limit; a longer one would be refused, and the whole status with it.
MAX_MESSAGE_LENGTH = 8192
# Reasons that say where things are on their way; the story in the events skips them.
_SILENT = frozenset(
    {
        Reason.PENDING,
        Reason.IN_PROGRESS,
        Reason.NOT_SUSPENDED,
        Reason.WAITING_FOR_POD,
        Reason.FINISHED,
        Reason.NO_ARTIFACT,
        Reason.BASE_MODEL_MATCHES,
        Reason.RECORD_WRITTEN,
        Reason.WAITING_FOR_REPLICAS,
    }
)
# Somebody asked for what they say is not the case, or it comes by itself.
_CALM = frozenset(
    {Reason.DISABLED, Reason.RESUMED, Reason.SUSPENDED, Reason.QUEUED, Reason.IMPORTING}
)
# Why something is not known, when that is somebody's business.
_ALARMING = frozenset(
    {Reason.REGISTRY_UNREACHABLE, Reason.ARTIFACT_STORE_UNREACHABLE, Reason.FORBIDDEN}
)


class Draft(Generic[S]):
    """Conditions are set through ``set``; the other fields of ``status`` are assigned."""

    def __init__(self, status: S, types: list[str], *, generation: int, now: datetime) -> None:
        """Start from ``status``; a condition type that it lacks begins as Unknown."""
        self.status: S = status.model_copy(deep=True)
        self.before = {c.type: c for c in status.conditions}
        self.generation = generation
        self.now = now
        self.status.observed_generation = generation
        for type_ in types:
            if type_ not in self.before:
                self.set(type_, "Unknown", Reason.PENDING)

    def set(self, type_: str, status: Status, reason: str, message: str = "") -> None:
        self.status.conditions = conditions.set_condition(
            self.status.conditions,
            type_,
            status,
            reason=str(reason)[:MAX_REASON_LENGTH],
            message=message[:MAX_MESSAGE_LENGTH],
            now=self.now,
            observed_generation=self.generation,
        )

    def find(self, type_: str) -> Condition:
        found = conditions.find_condition(self.status.conditions, type_)
        assert found is not None, type_
        return found

    def is_true(self, type_: str) -> bool:
        return conditions.is_true(self.status.conditions, type_)

    def finish(self, phase: Phase) -> dict[str, Any]:
        """Return the status as it is written."""
        self.status.phase = phase.value
        document: dict[str, Any] = self.status.model_dump(by_alias=True, exclude_none=True)
        return document

    def notes(self) -> tuple[Note, ...]:
        """Return an event for each condition whose status or reason became another one.

        What one condition says after another is told once.
        """
        told: dict[tuple[str, str], Note] = {}
        for i, c in enumerate(self.status.conditions):
            if c.reason not in _SILENT and self._is_news(c):
                type_: Literal["Normal", "Warning"] = "Warning" if _is_bad(c) else "Normal"
                told.setdefault((c.reason, c.message), Note(type_, c.reason, c.message, i))
        return tuple(told.values())

    def _is_news(self, condition: Condition) -> bool:
        before = self.before.get(condition.type)
        if before is None:
            return True
        return (before.status, before.reason) != (condition.status, condition.reason)


def _is_bad(condition: Condition) -> bool:
    """Whether somebody should know, who has not asked for it."""
    if condition.status == "False":
        return condition.reason not in _CALM
    return condition.reason in _ALARMING
