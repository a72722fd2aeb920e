"""JSON, merge and strategic merge patches."""

from typing import Any

import pytest
from loraland_local.api import definitions, kinds, patches
from loraland_local.api.errors import ApiError

PODS = definitions.of_kind(kinds.PODS)
Json = dict[str, Any]


@pytest.mark.parametrize(
    ("obj", "patch", "expected"),
    [
        pytest.param({"a": 1}, {"b": 2}, {"a": 1, "b": 2}, id="adds"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}, id="removes"),
        pytest.param({"a": [1, 2]}, {"a": [3]}, {"a": [3]}, id="replaces lists"),
        pytest.param({}, {"a": {"b": None}}, {"a": {}}, id="drops nulls in new parts"),
    ],
)
def test_merge_patch_follows_rfc_7386(obj: Json, patch: Json, expected: Json) -> None:
    """Null removes, objects merge, everything else replaces."""
    assert expected == patches.merge_patch(obj, patch)


def test_merge_patch_leaves_the_original_alone() -> None:
    """Stored objects are shared and never changed in place."""
    original = {"a": {"b": 1}}

    patches.merge_patch(original, {"a": {"b": 2}})

    assert original == {"a": {"b": 1}}


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([{"op": "test", "path": "/a", "value": 2}], id="failed test"),
        pytest.param([{"op": "remove", "path": "/nothing"}], id="missing path"),
    ],
)
def test_impossible_json_patch_is_unprocessable(operations: list[Json]) -> None:
    """What cannot be applied is a 422 without details, as a real server answers."""
    with pytest.raises(ApiError) as caught:
        patches.json_patch({"a": 1}, operations)

    assert (caught.value.code, caught.value.details) == (422, {})


def _pod(*containers: Json, **spec: Any) -> Json:
    return {"spec": {"containers": list(containers), **spec}}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        pytest.param(
            _pod({"name": "b", "image": "new"}),
            _pod({"name": "a", "image": "1"}, {"name": "b", "image": "new"}),
            id="merges by name",
        ),
        pytest.param(
            _pod({"name": "c", "image": "3"}),
            _pod(
                {"name": "c", "image": "3"},
                {"name": "a", "image": "1"},
                {"name": "b", "image": "2"},
            ),
            id="a new element goes first",
        ),
        pytest.param(
            _pod({"name": "a", "$patch": "delete"}),
            _pod({"name": "b", "image": "2"}),
            id="deletes an element",
        ),
        pytest.param(
            _pod({"$patch": "replace"}, {"name": "z"}),
            _pod({"name": "z"}),
            id="replaces the list",
        ),
        pytest.param(
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            _pod({"name": "b", "image": "2"}, {"name": "a", "image": "1"}),
            id="orders without a change",
        ),
        pytest.param({"spec": {"$patch": "delete"}}, {}, id="deletes a part"),
    ],
)
def test_strategic_merge_knows_lists_by_key(patch: Json, expected: Json) -> None:
    """Lists with a merge key are merged element by element."""
    pod = _pod({"name": "a", "image": "1"}, {"name": "b", "image": "2"})

    assert expected == patches.strategic_merge(pod, patch, PODS)


def test_strategic_merge_deletes_from_lists_of_words() -> None:
    """Finalizers are merged as a set, and have their own way to be removed."""
    obj = {"metadata": {"finalizers": ["a/x", "a/y"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"]}}

    assert patches.strategic_merge(obj, patch, PODS) == {"metadata": {"finalizers": ["a/y"]}}


def test_element_without_its_key_is_refused() -> None:
    """A list element that does not say which one it is cannot be merged."""
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        patches.strategic_merge(_pod({"name": "a"}), _pod({"image": "x"}), PODS)
