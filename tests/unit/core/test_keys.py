"""Redis keys and records: what operator and replicas agree on."""

import pytest
from loraland_core import keys
from loraland_core.errors import InvalidInput

RECORD = keys.AdapterRecord(
    base_model="tiny",
    digest="a" * 64,
    uri="s3://b/adapters/shop/desk/a/",
    size_bytes=10,
    rank=8,
    tenants=["shop"],
    revision=5,
)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (keys.adapters("tiny"), "ll:v1:{tiny}:adapters"),
        (keys.epoch("tiny"), "ll:v1:{tiny}:epoch"),
        (keys.changes("tiny"), "ll:v1:{tiny}:changes"),
        (keys.beat("tiny", "r0"), "ll:v1:{tiny}:beat:r0"),
        (keys.residency("tiny", "r0"), "ll:v1:{tiny}:residency:r0"),
        (keys.replicas("tiny"), "ll:v1:{tiny}:replicas"),
        (keys.use("tiny"), "ll:v1:{tiny}:use"),
        (keys.lease("n1", "d"), "ll:v1:lease:n1:d"),
    ],
)
def test_keys_are_pinned(key: str, expected: str) -> None:
    """Old and new releases meet in one Redis, so key names never change silently."""
    assert expected == key


def test_record_survives_a_round_trip() -> None:
    """What the operator writes is what a replica reads."""
    assert keys.parse_adapter_record(RECORD.to_json()) == RECORD


def test_record_tolerates_unknown_fields() -> None:
    """A newer operator may say more than this release knows."""
    data = RECORD.to_json().replace("{", '{"colour":"blue",', 1)

    assert keys.parse_adapter_record(data) == RECORD


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("nonsense", id="not-json"),
        pytest.param(RECORD.to_json().replace('"shop"', ""), id="no-tenants"),
        pytest.param(
            RECORD.to_json().replace('"schemaVersion":1', '"schemaVersion":2'), id="newer"
        ),
    ],
)
def test_bad_record_is_refused_by_name(data: str) -> None:
    """A record that cannot be trusted is an error, not a guess."""
    with pytest.raises(InvalidInput, match="AdapterRecord"):
        keys.parse_adapter_record(data)


def test_same_content_ignores_the_revision() -> None:
    """A record is written again only when it says something new."""
    assert RECORD.same_content(RECORD.model_copy(update={"revision": 9}))
    assert not RECORD.same_content(RECORD.model_copy(update={"pinned": True}))
