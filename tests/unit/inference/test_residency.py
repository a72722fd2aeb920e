"""What a replica says of where adapters are."""

from loraland_core import keys
from loraland_core.keys import AdapterRecord, ResidentAdapter
from loraland_inference.adapters import residency


def build_record(digest: str) -> AdapterRecord:
    return AdapterRecord(
        base_model="b", digest=digest, uri="s3://b/x/", size_bytes=1, rank=4, tenants=["t"]
    )


def test_what_is_near_and_what_fails_is_told() -> None:
    """An adapter that S3 alone has is not worth a word, until it cannot be had."""
    tiers = {"near": "slot", "failing": "absent", "far": "absent"}

    found = residency.build(
        {f"ns/{digest}": build_record(digest) for digest in tiers},
        tier_of=lambda digest: tiers[digest],
        failures={"failing": "Unavailable: S3 is away"},
    )

    assert found == {
        "ns/near": ResidentAdapter(digest="near", tier="slot"),
        "ns/failing": ResidentAdapter(
            digest="failing", tier="absent", error="Unavailable: S3 is away"
        ),
    }


def test_failures_are_bounded() -> None:
    """A store that is away does not make a value of megabytes."""
    records = {f"ns/a{i:04}": build_record(f"{i}") for i in range(300)}

    found = residency.build(
        records,
        tier_of=lambda _: "absent",
        failures={record.digest: "x" * 10_000 for record in records.values()},
    )

    assert len(found) == keys.MAX_FAILING
    assert {len(held.error or "") for held in found.values()} == {keys.MAX_ERROR_LENGTH}
