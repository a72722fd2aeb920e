"""Labels of metrics: few, for the names that are used most, and steady."""

from hypothesis import given
from hypothesis import strategies as st
from loraland_inference.top_labels import HALF_LIFE_S, OTHER, WATCHED_PER_LABEL, TopLabels


def test_first_names_get_labels_and_the_rest_is_other() -> None:
    """Until there are as many as may be."""
    labels = TopLabels(2)

    assert [labels.label(n, 0.0) for n in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]


def test_name_that_is_used_clearly_more_takes_a_label_over() -> None:
    """Its predecessor's series are given up; a single use more is not enough."""
    dropped: list[str] = []
    labels = TopLabels(1, on_drop=dropped.append)
    for _ in range(2):
        labels.label("old", 0.0)

    found = [labels.label("new", 0.0) for _ in range(4)]

    assert found == [OTHER, OTHER, OTHER, "new"]
    assert dropped == ["old"]


def test_use_of_long_ago_counts_little() -> None:
    """What everybody used yesterday gives way to what is used now."""
    labels = TopLabels(1)
    for _ in range(1000):
        labels.label("yesterday", 0.0)

    assert labels.label("today", 12 * HALF_LIFE_S) == "today"


def test_no_labels_at_all_is_possible() -> None:
    """Zero turns them off."""
    assert TopLabels(0).label("a", 0.0) == OTHER


def test_weights_stay_within_what_a_number_holds() -> None:
    """After years, use is still told apart."""
    labels = TopLabels(1)
    for day in range(3000):
        labels.label("steady", day * 86_400.0)

    assert labels.label("steady", 3001 * 86_400.0) == "steady"
    assert max(labels._weights.values()) < 1e30


@given(
    most=st.integers(1, 5),
    uses=st.lists(st.tuples(st.integers(0, 200), st.floats(0, 300)), max_size=300),
)
def test_series_are_bounded_whatever_is_used(most: int, uses: list[tuple[int, float]]) -> None:
    """Labels that were handed out and not dropped again are never more than ``most``."""
    alive: set[str] = set()
    labels, now_s = TopLabels(most, on_drop=alive.discard), 0.0
    for number, gap_s in uses:
        now_s += gap_s
        label = labels.label(f"adapter-{number}", now_s)
        if label != OTHER:
            alive.add(label)

        assert alive == labels.labels
        assert len(alive) <= most
        assert len(labels._weights) <= most * (1 + WATCHED_PER_LABEL)
