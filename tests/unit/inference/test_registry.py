"""What a replica knows of the registry, and what it says it has applied."""

import pytest
from loraland_core.errors import NotFound, Unavailable
from loraland_core.keys import AdapterRecord, Rejection
from loraland_inference.adapters.registry import RETRY_AFTER_S, Registry


def build_record(digest: str, revision: int, tenant: str = "default") -> AdapterRecord:
    return AdapterRecord(
        base_model="tiny", digest=digest, uri=f"s3://b/{digest}/", size_bytes=1, rank=4,
        tenants=[tenant], revision=revision,
    )  # fmt: skip


def anyone(_: AdapterRecord) -> bool:
    return True


def test_registry_is_unknown_until_it_has_been_read() -> None:
    """A name that is not known yet may still exist: come back, not NOT_FOUND."""
    registry = Registry()

    with pytest.raises(Unavailable):
        registry.find("ns/a", anyone)


def test_registry_keeps_what_it_knows_when_its_source_is_lost() -> None:
    """Known adapters go on; unknown ones may come back."""
    registry = Registry()
    registry.replace({"ns/a": build_record("d1", 1)}, 1)

    registry.forget_completeness()

    assert registry.find("ns/a", anyone).digest == "d1"
    with pytest.raises(Unavailable):
        registry.find("ns/b", anyone)


def test_find_answers_alike_for_what_is_absent_and_what_is_not_allowed() -> None:
    """Nobody learns of another tenant's adapters."""
    registry = Registry()
    registry.replace({"ns/a": build_record("d1", 1)}, 1)

    with pytest.raises(NotFound) as hidden:
        registry.find("ns/a", lambda _: False)
    with pytest.raises(NotFound) as absent:
        registry.find("ns/b", anyone)

    assert str(hidden.value).replace("ns/a", "ns/b") == str(absent.value)


def test_applied_revision_stays_below_what_is_not_verified() -> None:
    """A record counts as applied when there is a verdict on it, good or bad."""
    registry = Registry()
    good, bad = build_record("d1", 5), build_record("d2", 7)
    registry.replace({"ns/a": good, "ns/b": bad}, 9)

    applied = [registry.applied_revision]
    registry.set_verified("ns/a", good, None)
    applied.append(registry.applied_revision)
    registry.set_verified("ns/b", bad, Rejection(digest="d2", reason="DigestMismatch"))
    applied.append(registry.applied_revision)

    assert applied == [4, 6, 9]
    assert list(registry.rejections()) == ["ns/b"]


def test_apply_ignores_what_is_older_than_what_is_known() -> None:
    """A slow reading does not undo a newer change."""
    registry = Registry()
    registry.apply("ns/a", build_record("new", 8), 8)

    registry.replace({"ns/a": build_record("old", 3)}, 3)

    assert registry.find("ns/a", anyone).digest == "new"


def test_record_is_verified_again_only_when_its_content_changes() -> None:
    """The same content under a new revision keeps its verdict; another digest loses it."""
    registry = Registry()
    record = build_record("d1", 1)
    registry.apply("ns/a", record, 1)
    registry.set_verified("ns/a", record, None)

    registry.apply("ns/a", build_record("d1", 2), 2)
    unchanged = registry.unverified()
    registry.apply("ns/a", build_record("d2", 3), 3)

    assert (unchanged, [i for i, _ in registry.unverified()]) == ([], ["ns/a"])


def test_rejection_of_files_may_be_tried_again_later() -> None:
    """Bad bytes may be repaired in the store; a bad manifest waits for a new record."""
    registry = Registry()
    record = build_record("d1", 1)
    registry.replace({"ns/a": record}, 1)

    registry.reject("d1", Rejection(digest="d1", reason="DigestMismatch"), now_s=100.0)
    held = registry.standing_rejection("ns/a", 100.0 + RETRY_AFTER_S - 1)
    later = registry.standing_rejection("ns/a", 100.0 + RETRY_AFTER_S)
    registry.accept("d1")

    assert (held is not None, later) == (True, None)
    assert registry.rejections() == {}
