"""What the demo refuses before it starts anything."""

from pathlib import Path

import pytest
from loraland_cli.console import Failure
from loraland_cli.demo import story


def test_place_of_the_numbers_is_checked_first(tmp_path: Path) -> None:
    """Nobody waits for minutes to learn of a typing mistake."""
    state = tmp_path / "state"

    with pytest.raises(Failure, match="there is no directory"):
        story.run(state, job=None, json_file=tmp_path / "absent" / "out.json", keep=False)

    assert not state.exists()


def test_directory_of_others_is_never_emptied(tmp_path: Path) -> None:
    """The demo removes only what a stack has made."""
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(Failure, match="not empty and not a stack's"):
        story.run(tmp_path, job=None, json_file=None, keep=False)

    assert (tmp_path / "thesis.txt").exists()


def test_lock_alone_does_not_make_a_directory_the_demo_s(tmp_path: Path) -> None:
    """Many programs leave a file of that name."""
    (tmp_path / "lock").write_text("4711")
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(Failure, match="not empty and not a stack's"):
        story.run(tmp_path, job=None, json_file=None, keep=False)

    assert (tmp_path / "thesis.txt").exists()
