"""What the operator has published: the records of one base model, and which of them are refused.

The state and its rules; Redis itself is read by ``registry_reader``. A registry that has not been
read completely is *unknown*, not empty: nothing is forgotten because of it.
"""

from collections.abc import Callable, Mapping
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
    # Called when there is a verdict on every record, and so something new to tell.
    on_judged: Callable[[], None] = lambda: None
    # The newest revision that has been read.
    read_revision: int = 0
    _known: dict[str, _Known] = field(default_factory=dict)
    # Records without a verdict, and refused ones: a land of thousands is not searched for them.
    _pending: dict[str, AdapterRecord] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)

    @property
    def applied_revision(self) -> int:
        """The revision up to which every record has been verified or rejected."""
        pending = (record.revision - 1 for record in self._pending.values())
        return min([self.read_revision, *pending])

    @property
    def records(self) -> dict[str, AdapterRecord]:
        return {adapter_id: known.record for adapter_id, known in self._known.items()}

    def __len__(self) -> int:
        return len(self._known)

    def replace(
        self,
        records: Mapping[str, AdapterRecord],
        revision: int,
        rejections: Mapping[str, Rejection] | None = None,
    ) -> None:
        """Take a complete reading; what it lacks is gone. ``rejections``: what cannot be read."""
        for adapter_id in set(self._known) - set(records):
            self._remove(adapter_id)
        for adapter_id, record in records.items():
            self._put(adapter_id, record, (rejections or {}).get(adapter_id))
        self.read_revision = max([revision, *(r.revision for r in records.values())])
        self.is_known = True
        self._tell()

    def apply(
        self,
        adapter_id: str,
        record: AdapterRecord | None,
        revision: int,
        rejection: Rejection | None = None,
    ) -> None:
        """Take one change; ``None`` is a deletion."""
        if record is None:
            self._remove(adapter_id)
        else:
            self._put(adapter_id, record, rejection)
        self.read_revision = max(self.read_revision, revision)
        self._tell()

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
        return list(self._pending.items())

    def set_verified(
        self, adapter_id: str, record: AdapterRecord, rejection: Rejection | None
    ) -> None:
        """Note the verdict on a record, unless a newer one has taken its place."""
        known = self._known.get(adapter_id)
        if known is not None and known.record.digest == record.digest:
            self._judge(adapter_id, known, rejection)
            if not self._pending:
                self.on_judged()

    def reject(self, digest: str, rejection: Rejection, now_s: float) -> None:
        """Refuse an artifact whose files turned out wrong, for a while."""
        for adapter_id, known in self._known.items():
            if known.record.digest == digest:
                self._judge(adapter_id, known, rejection, retry_at_s=now_s + RETRY_AFTER_S)

    def accept(self, digest: str) -> None:
        """Lift a temporary rejection: the files have been read and are as they should be."""
        for adapter_id in list(self._refused):
            known = self._known[adapter_id]
            if known.record.digest == digest and known.retry_at_s is not None:
                self._judge(adapter_id, known, None)

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
        told = sorted(self._refused)[: keys.MAX_REJECTED]
        found = {adapter_id: self._known[adapter_id].rejection for adapter_id in told}
        return {adapter_id: r for adapter_id, r in found.items() if r is not None}

    def _tell(self) -> None:
        self.on_change()
        if not self._pending:
            # A deletion, a record that cannot be read: nothing is left to wait for.
            self.on_judged()

    def _put(self, adapter_id: str, record: AdapterRecord, rejection: Rejection | None) -> None:
        before = self._known.get(adapter_id)
        if before is not None and before.record.revision > record.revision:
            # A slow reading must not undo a newer change.
            return
        if before is not None and rejection is None and _is_same(before, record):
            before.record = record
            return
        known = self._known[adapter_id] = _Known(record)
        self._pending[adapter_id] = record
        self._refused.discard(adapter_id)
        if rejection is not None:
            self._judge(adapter_id, known, rejection)

    def _judge(
        self,
        adapter_id: str,
        known: _Known,
        rejection: Rejection | None,
        *,
        retry_at_s: float | None = None,
    ) -> None:
        known.is_verified, known.rejection, known.retry_at_s = True, rejection, retry_at_s
        self._pending.pop(adapter_id, None)
        if rejection is None:
            self._refused.discard(adapter_id)
        else:
            self._refused.add(adapter_id)

    def _remove(self, adapter_id: str) -> None:
        self._known.pop(adapter_id, None)
        self._pending.pop(adapter_id, None)
        self._refused.discard(adapter_id)


def _is_same(before: _Known, record: AdapterRecord) -> bool:
    """Whether a record says what is known already; a stub of an unreadable one never does."""
    if before.record is record:
        return True
    return bool(before.record.base_model) and before.record.same_content(record)
