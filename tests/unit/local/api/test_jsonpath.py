"""The JSONPath of printer columns."""

from typing import Any

import pytest
from loraland_local.api import jsonpath

OBJ = {
    "spec": {"size": "s", "list": [1, 2, 3], "dotted.key": "d"},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True", "n": 1},
            {"type": "Done", "status": "False", "n": 5},
        ]
    },
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(".spec.size", ["s"], id="field"),
        pytest.param("{.spec.size}", ["s"], id="braces"),
        pytest.param(".spec.missing", [], id="absent"),
        pytest.param(".spec.list[1]", [2], id="index"),
        pytest.param(".spec.list[-1]", [3], id="from the end"),
        pytest.param(".spec.list[*]", [1, 2, 3], id="all"),
        pytest.param(r".spec.dotted\.key", ["d"], id="escaped dot"),
        pytest.param(".spec['dotted.key']", ["d"], id="quoted"),
        pytest.param('.status.conditions[?(@.type=="Ready")].status', ["True"], id="filter"),
        pytest.param(".status.conditions[?(@.n>2)].type", ["Done"], id="compares numbers"),
        pytest.param("..n", [1, 5], id="anywhere"),
    ],
)
def test_path_leads_to(path: str, expected: list[Any]) -> None:
    """A path yields everything it leads to, and nothing where there is nothing."""
    assert expected == jsonpath.find(OBJ, path)


def test_unreadable_path_is_named() -> None:
    """A column with a broken path says which."""
    with pytest.raises(ValueError, match="cannot read"):
        jsonpath.find(OBJ, ".spec[")
