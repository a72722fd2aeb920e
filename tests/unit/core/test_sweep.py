"""What a sweep of the artifact store takes, and what it must leave."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loraland_core import sweep
from loraland_core.artifacts import MANIFEST_FILE, WEIGHTS_FILE
from loraland_core.store import StoredObject, UnfinishedUpload
from loraland_core.sweep import Named, Observed, Why

NOW = datetime(2026, 1, 10, tzinfo=UTC)
OLD, YOUNG = NOW - timedelta(days=3), NOW - timedelta(hours=2)


def digest(number: int) -> str:
    return f"{number:064x}"


def version(
    number: int, *, at: datetime = OLD, name: str = "a", is_whole: bool = True
) -> list[StoredObject]:
    prefix = f"adapters/ns/{name}/{digest(number)}/"
    files = [WEIGHTS_FILE, *([MANIFEST_FILE] if is_whole else [])]
    return [StoredObject(prefix + f, 10, modified_at=at) for f in files]


def checkpoint(uid: str, *, at: datetime = OLD) -> list[StoredObject]:
    return [StoredObject(f"jobs/{uid}/checkpoints/step-00000010/x", 10, modified_at=at)]


def named(*numbers: int, name: str = "a", limit: int = 1) -> Named:
    return Named("ns", name, frozenset(map(digest, numbers)), limit)


def result(objects: list[StoredObject], observed: Observed) -> dict[str, Why]:
    return {
        r.prefix.removeprefix("adapters/ns/"): r.why for r in sweep.plan(objects, observed, NOW)
    }


LIVE = Observed(live_jobs=frozenset({"u"}), live_names=frozenset({("ns", "a")}))
ABANDONED = {f"a/{digest(1)}/": Why.ABANDONED_UPLOAD}
CHECKPOINTS = {"jobs/u/checkpoints/": Why.OLD_CHECKPOINT}


@pytest.mark.parametrize(
    ("objects", "observed", "expected"),
    [
        (version(1, is_whole=False), Observed(), ABANDONED),
        (version(1, is_whole=False, at=YOUNG), Observed(), {}),
        (version(1, is_whole=False), LIVE, {}),
        (version(1, is_whole=False), Observed(adapters=(named(1),)), {}),
        (version(1, is_whole=False), Observed(namespaces=frozenset({"other"})), {}),
        (version(1), Observed(), {}),
        (checkpoint("u"), Observed(ended_jobs=frozenset({"u"})), CHECKPOINTS),
        (checkpoint("u"), Observed(), CHECKPOINTS),
        (checkpoint("u"), Observed(namespaces=frozenset({"ns"})), {}),
        (checkpoint("u", at=NOW - timedelta(minutes=5)), Observed(), {}),
        (checkpoint("u"), LIVE, {}),
        ([StoredObject("jobs/u/result.json", 1, modified_at=OLD)], Observed(), {}),
        ([StoredObject("adapters/strange", 1, modified_at=OLD)], Observed(), {}),
    ],
    ids=[
        "abandoned upload",
        "upload of today",
        "upload of a live job",
        "upload that an Adapter names",
        "upload of a namespace that is not watched",
        "whole artifact without an Adapter",
        "checkpoint of an ended job",
        "checkpoint of a deleted job",
        "checkpoint of a job that may be elsewhere",
        "checkpoint of five minutes ago",
        "checkpoint of a live job",
        "result",
        "what is not ours",
    ],
)
def test_sweep_takes(
    objects: list[StoredObject], observed: Observed, expected: dict[str, Why]
) -> None:
    """Only what nobody can need any more."""
    assert result(objects, observed) == expected


def test_history_keeps_the_latest_and_what_is_named() -> None:
    """Of five versions the named one and the two latest others stay."""
    objects = [o for n in range(5) for o in version(n, at=OLD + timedelta(hours=n))]

    found = result(objects, Observed(adapters=(named(1, limit=2),)))
    assert found == dict.fromkeys((f"a/{digest(0)}/", f"a/{digest(2)}/"), Why.BEYOND_HISTORY)


def test_digest_that_any_adapter_names_stays() -> None:
    """Two Adapters may refer to one upload; the larger history holds."""
    objects = [o for n in range(4) for o in version(n, at=OLD + timedelta(hours=n))]
    observed = Observed(adapters=(named(0, limit=0), named(1, limit=1)))

    assert result(objects, observed) == {f"a/{digest(2)}/": Why.BEYOND_HISTORY}


def test_young_digest_stays_beyond_the_history() -> None:
    """A job may have uploaded it and not have published it yet."""
    objects = version(1, at=YOUNG) + version(2, at=YOUNG + timedelta(hours=1))

    assert result(objects, Observed(adapters=(named(limit=0),))) == {}


@pytest.mark.parametrize(
    ("key", "begun_at", "expected"),
    [
        ("adapters/ns/a/d/weights", OLD, True),
        ("adapters/ns/a/d/weights", YOUNG, False),
        ("adapters/ns/b/d/weights", OLD, True),
        ("jobs/u/checkpoints/x", OLD, True),
        ("jobs/live/checkpoints/x", OLD, False),
        ("adapters/ns/live/d/weights", OLD, False),
    ],
)
def test_upload_in_parts_is_abandoned(key: str, begun_at: datetime, expected: bool) -> None:
    """When it is old, and no job goes on with it."""
    observed = Observed(live_jobs=frozenset({"live"}), live_names=frozenset({("ns", "live")}))

    assert sweep.is_abandoned(UnfinishedUpload(key, "id", begun_at), observed, NOW) == expected


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 96)), max_size=12),
    st.sets(st.integers(0, 5)),
    st.integers(0, 3),
    st.booleans(),
)
def test_nothing_that_is_needed_goes(
    uploads: list[tuple[int, bool, int]], kept: set[int], limit: int, is_live: bool
) -> None:
    """Whatever the store holds: no named, young or living thing; never a file of two folders."""
    objects = {
        o.key: o
        for number, is_whole, age_h in uploads
        for o in version(number, is_whole=is_whole, at=NOW - timedelta(hours=age_h))
    }
    live = frozenset({("ns", "a")}) if is_live else frozenset[tuple[str, str]]()
    observed = Observed(adapters=(named(*kept, limit=limit),), live_names=live)

    for removal in sweep.plan(objects.values(), observed, NOW):
        gone = [o for o in objects.values() if o.key.startswith(removal.prefix)]
        assert not is_live
        assert not any(digest(n) in removal.prefix for n in kept)
        assert all(NOW - o.modified_at >= sweep.MIN_AGE for o in gone)
        assert (len(gone), removal.newest) == (
            removal.num_objects, max(o.modified_at for o in gone),
        )  # fmt: skip
