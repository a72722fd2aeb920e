"""What a plan consists of. Pure data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loraland_core import names
from loraland_core.keys import AdapterRecord


@dataclass(frozen=True)
class Apply:
    """A server-side apply. ``force`` takes fields over from others; only on what is ours alone."""

    manifest: Mapping[str, Any]
    manager: str = names.MANAGER_OPERATOR
    force: bool = True


@dataclass(frozen=True)
class Note:
    """An event that a person reads in ``kubectl describe``."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    # Its place among events of the same second, which kubectl shows in the order of their names.
    order: int = 0


@dataclass(frozen=True)
class Refusal:
    """The API server's answer to an ``Apply`` that it did not take."""

    kind: str
    cause: Literal["invalid", "conflict", "forbidden"]
    message: str


@dataclass(frozen=True)
class Plan:
    """What to do about a FineTuneJob.

    With something in ``apply`` the world changes and is looked at again before the status is
    written. ``status`` is the whole status as it should be; None leaves it alone.
    """

    apply: tuple[Apply, ...] = ()
    delete_self: bool = False
    status: dict[str, Any] | None = None
    notes: tuple[Note, ...] = ()
    requeue_after_s: float | None = None


@dataclass(frozen=True)
class AdapterPlan:
    """What to do about an Adapter, in the order of the fields.

    With something to do the world changes and is looked at again before the status is written.
    """

    apply: tuple[Apply, ...] = ()
    add_finalizer: bool = False
    publish: AdapterRecord | None = None
    withdraw: bool = False
    delete_prefixes: tuple[str, ...] = ()
    remove_finalizer: bool = False
    status: dict[str, Any] | None = None
    notes: tuple[Note, ...] = ()
    requeue_after_s: float | None = None

    @property
    def changes_the_world(self) -> bool:
        return bool(
            self.apply
            or self.add_finalizer
            or self.publish
            or self.withdraw
            or self.delete_prefixes
            or self.remove_finalizer
        )
