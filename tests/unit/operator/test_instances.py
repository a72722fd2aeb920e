"""What an Adapter's status says of each replica: where it is, or why it is not."""

from loraland_core import keys
from loraland_operator.plan import fleet
from loraland_operator.plan.fleet import Fleet


def test_instances_tell_tier_and_error() -> None:
    """One holds the adapter, one cannot fetch it; both are told by name."""
    held = {
        "r1": keys.ResidentAdapter(digest="d", tier="host"),
        "r2": keys.ResidentAdapter(digest="d", tier="absent", error="Unavailable: S3 is away"),
    }
    residencies = [keys.Residency(replica=r, adapters={"ns/a": a}) for r, a in held.items()]

    found = fleet.build_instances(Fleet(residencies=tuple(residencies)), "ns/a")

    assert [(i.replica, i.tier, i.error) for i in found] == [
        ("r1", "host", None),
        ("r2", "absent", "Unavailable: S3 is away"),
    ]
