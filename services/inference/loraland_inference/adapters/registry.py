"""What the operator has published: the records of one base model, and which of them are refused.

The state and its rules; Redis itself is read by ``registry_reader``. A registry that has not been
read completely is *unknown*, not empty: nothing is forgotten because of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from loraland_core import keys
from loraland_core.errors import NotFound, Unavailable
from loraland_core.keys import AdapterRecord, Rejection

# Seconds until a fault that was found while fetching is looked at once more.
RETRY_AFTER_S = 30.0


@dataclass
class _Known:
    record: AdapterRecord
    is_verified: bool = False
    rejection: Rejection | None = None
    # When a rejection may be tried again; None for one that only a new record lifts.
    retry_at_s: float | None = None


@dataclass
class Registry:
    """Records by adapter id ``namespace/name``."""

    is_known: bool = False
    on_change: Callable[[], None] = lambda: None
    _known: dict[str, _Known] = field(default_factory=dict)
    _read_revision: int = 0

    @property
    def applied_revision(self) -> int:
        """The revision up to which every record has been verified or rejected."""
        pending = [k.record.revision for k in self._known.values() if not k.is_verified]
        return min([self._read_revision, *(revision - 1 for revision in pending)])

    @property
    def records(self) -> dict[str, AdapterRecord]:
        return {adapter_id: known.record for adapter_id, known in self._known.items()}

    def replace(self, records: dict[str, AdapterRecord], revision: int) -> None:
        """Take a complete reading; what it lacks is gone."""
        for adapter_id in set(self._known) - set(records):
            del self._known[adapter_id]
        for adapter_id, record in records.items():
            self._put(adapter_id, record)
        self._read_revision = max([revision, *(r.revision for r in records.values())])
        self.is_known = True
        self.on_change()

    def apply(self, adapter_id: str, record: AdapterRecord | None, revision: int) -> None:
        """Take one change; ``None`` is a deletion."""
        if record is None:
            self._known.pop(adapter_id, None)
        else:
            self._put(adapter_id, record)
        self._read_revision = max(self._read_revision, revision)
        self.on_change()

    def forget_completeness(self) -> None:
        self.is_known = False

    def find(self, adapter_id: str, allowed: Callable[[AdapterRecord], bool]) -> AdapterRecord:
        """Return the record; what is not there and what is not this caller's look alike."""
        known = self._known.get(adapter_id)
        if known is not None and allowed(known.record):
            return known.record
        if known is None and not self.is_known:
            raise Unavailable("the adapter registry has not been read yet", retry_after_s=2.0)
        raise NotFound(f"there is no adapter {adapter_id!r} here, or it is not yours to use")

    def unverified(self) -> list[tuple[str, AdapterRecord]]:
        return [(i, k.record) for i, k in self._known.items() if not k.is_verified]

    def set_verified(
        self, adapter_id: str, record: AdapterRecord, rejection: Rejection | None
    ) -> None:
        """Note the verdict on a record, unless a newer one has taken its place."""
        known = self._known.get(adapter_id)
        if known is not None and known.record.digest == record.digest:
            known.is_verified, known.rejection, known.retry_at_s = True, rejection, None

    def reject(self, digest: str, rejection: Rejection, now_s: float) -> None:
        """Refuse an artifact whose files turned out wrong, for a while."""
        for known in self._known.values():
            if known.record.digest == digest:
                known.is_verified, known.rejection = True, rejection
                known.retry_at_s = now_s + RETRY_AFTER_S

    def accept(self, digest: str) -> None:
        """Lift a temporary rejection: the files have been read and are as they should be."""
        for known in self._known.values():
            if known.record.digest == digest and known.retry_at_s is not None:
                known.rejection, known.retry_at_s = None, None

    def rejection(self, adapter_id: str) -> Rejection | None:
        known = self._known.get(adapter_id)
        return known.rejection if known else None

    def standing_rejection(self, adapter_id: str, now_s: float) -> Rejection | None:
        """Return a rejection that holds now; one whose time has come may be tried again."""
        known = self._known.get(adapter_id)
        if known is None or (known.retry_at_s is not None and now_s >= known.retry_at_s):
            return None
        return known.rejection

    def rejections(self) -> dict[str, Rejection]:
        """Return what a heartbeat tells; bounded."""
        found = {i: k.rejection for i, k in self._known.items() if k.rejection is not None}
        return dict(sorted(found.items())[: keys.MAX_REJECTED])

    def _put(self, adapter_id: str, record: AdapterRecord) -> None:
        before = self._known.get(adapter_id)
        if before is not None and before.record.revision > record.revision:
            # A slow reading must not undo a newer change.
            return
        if before is not None and before.record.same_content(record):
            before.record = record
            return
        self._known[adapter_id] = _Known(record)
