"""Label and field selectors."""

import pytest
from loraland_local.api import kinds, selectors
from loraland_local.api.errors import ApiError

OBJ = {"metadata": {"name": "a", "namespace": "n", "labels": {"team": "red", "rank": "8"}}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("team=red", True, id="equal"),
        pytest.param("team==blue", False, id="double equal"),
        pytest.param("team!=blue", True, id="unequal"),
        pytest.param("missing!=x", True, id="an absent label is unequal"),
        pytest.param("team in (red, blue)", True, id="in"),
        pytest.param("team notin (red)", False, id="notin"),
        pytest.param("team", True, id="exists"),
        pytest.param("!team", False, id="does not exist"),
        pytest.param("team=red,rank>7", True, id="all must hold"),
        pytest.param("rank<8", False, id="less than"),
        pytest.param("app.kubernetes.io/name!=x,!other", True, id="prefixed key"),
    ],
)
def test_label_selector_matches(text: str, expected: bool) -> None:
    """A label selector is the conjunction of its terms."""
    match = selectors.labels(text)

    assert match is not None
    assert expected == match(OBJ)


def test_empty_label_selector_selects_everything() -> None:
    """Without terms there is nothing to test."""
    assert selectors.labels("") is None


def test_malformed_label_selector_is_refused() -> None:
    """A text that is no selector is a bad request."""
    with pytest.raises(ApiError) as caught:
        selectors.labels("team in red")

    assert caught.value.code == 400


def test_field_selector_reads_nested_fields() -> None:
    """Pods can be found by node."""
    match = selectors.fields("spec.nodeName=n1,status.phase!=Failed", kinds.PODS)

    assert match is not None
    assert match({"metadata": {}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}})


def test_unknown_field_is_refused_by_name() -> None:
    """Only the fields of a kind can be selected by."""
    with pytest.raises(ApiError, match=r"field label not supported: spec\.image"):
        selectors.fields("spec.image=x", kinds.PODS)
