"""What is brought near before anybody asks: wishes first, then what is used, as far as there is room."""

import pytest
from loraland_core.keys import AdapterRecord
from loraland_inference.adapters import prefetch
from loraland_inference.adapters.prefetch import Room, Wish


def build_record(name: str, **changes: object) -> AdapterRecord:
    return AdapterRecord(
        base_model="b", digest=name, uri="s3://b/x/", size_bytes=10, rank=4, tenants=["t"],
        **changes,
    )  # fmt: skip


def plan(
    *records: AdapterRecord,
    uses: dict[str, float] | None = None,
    tiers: dict[str, str] | None = None,
    room: tuple[int, int] = (1000, 1000),
    refused: tuple[str, ...] = (),
) -> list[Wish]:
    return prefetch.plan(
        {r.digest: r for r in records},
        uses or {},
        tier_of=lambda digest: (tiers or {}).get(digest, "absent"),
        is_refused=lambda adapter_id: adapter_id in refused,
        room=Room(*room),
    )


def guess(name: str, tier: str) -> Wish:
    return Wish(name, tier, is_guess=True)  # type: ignore[arg-type]


A, B, C = (build_record(name) for name in "abc")


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (plan(A, build_record("p", pinned=True)), [Wish("p", "slot")]),
        (plan(build_record("p", prefetch=True)), [Wish("p", "disk")]),
        (plan(build_record("p", prefetch=True), tiers={"p": "disk"}), []),
        (
            plan(build_record("p", pinned=True), build_record("q", pinned=True, priority=5)),
            [Wish("q", "slot"), Wish("p", "slot")],
        ),
        (plan(build_record("p", pinned=True), refused=("p",)), []),
        (plan(A, B, uses={"a": 5, "b": 9}), [guess("b", "host"), guess("a", "host")]),
        (plan(A, B, uses={"a": 5, "b": 1.9}), [guess("a", "host")]),
        (plan(A, B, uses={"a": 5, "b": 4}, room=(10, 99)), [guess("a", "host")]),
        (
            plan(A, B, uses={"a": 5, "b": 4}, room=(99, 10)),
            [guess("a", "host"), guess("b", "disk")],
        ),
        (plan(A, uses={"a": 5}, tiers={"a": "disk"}, room=(0, 99)), [guess("a", "host")]),
        (plan(A, uses={"a": 5}, tiers={"a": "disk"}, room=(0, 0)), []),
        (plan(A, B, uses={"a": 5, "b": 4}, tiers={"a": "slot", "b": "host"}), []),
        (plan(A, uses={"gone": 9, "a": 5}), [guess("a", "host")]),
        (
            plan(build_record("p", prefetch=True), A, uses={"p": 9, "a": 5}),
            [Wish("p", "disk"), guess("a", "host")],
        ),
    ],
    ids=[
        "pinned", "prefetch", "prefetched", "priority", "refused", "most-used-first", "by-chance",
        "full-disk", "full-host", "on-disk", "no-room", "near", "unknown", "wish-before-guess",
    ],
)  # fmt: skip
def test_plan(wishes: list[Wish], expected: list[Wish]) -> None:
    """In the order in which they are brought."""
    assert wishes == expected
