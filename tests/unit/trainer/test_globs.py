"""Names with wildcards."""

import pytest
from loraland_trainer import globs


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        pytest.param("a/*.jsonl", "a/b.jsonl", True, id="star"),
        pytest.param("a/*.jsonl", "a/b/c.jsonl", False, id="star-stays-in-its-folder"),
        pytest.param("a/**/*.jsonl", "a/b/c/d.jsonl", True, id="folders"),
        pytest.param("a/**/*.jsonl", "a/d.jsonl", True, id="no-folder-between"),
        pytest.param("a/**", "a/b/c", True, id="everything-below"),
        pytest.param("part-?.csv", "part-1.csv", True, id="one-character"),
        pytest.param("part-?.csv", "part-10.csv", False, id="one-and-no-more"),
        pytest.param("part-[0-3].csv", "part-2.csv", True, id="set"),
        pytest.param("part-[!0-3].csv", "part-2.csv", False, id="set-without"),
        pytest.param("part-[!0-3].csv", "part-/.csv", False, id="set-never-means-a-slash"),
        pytest.param("a.b*", "aXbc", False, id="a-dot-is-a-dot"),
        pytest.param("x[]]y*", "x]yz", True, id="bracket-in-a-set"),
        pytest.param("x[y*", "x[yz", True, id="bracket-alone"),
    ],
)
def test_a_pattern_means_names(pattern: str, name: str, expected: bool) -> None:
    """As in a shell; two stars cross folders."""
    assert bool(globs.compile_glob(pattern).fullmatch(name)) is expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("a/b-*/c", "a/", id="folder"),
        pytest.param("*.csv", "", id="top"),
        pytest.param("a/b/c.csv", "a/b/", id="no-wildcard"),
    ],
)
def test_the_search_begins_at_the_last_fixed_folder(pattern: str, expected: str) -> None:
    """A whole bucket is not listed for one folder of it."""
    assert expected == globs.fixed_part(pattern)
