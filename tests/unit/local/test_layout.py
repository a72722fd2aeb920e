"""The state directory and its record."""

from pathlib import Path

import pytest
from loraland_core.errors import InvalidInput
from loraland_local import layout
from loraland_local.layout import Layout, StackRecord, Station


def test_locate_takes_the_variable_when_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LORALAND_STATE stands between the option and the default."""
    monkeypatch.setenv("LORALAND_STATE", str(tmp_path / "variable"))
    chosen = [layout.locate(None).state, layout.locate(tmp_path / "option").state]

    assert chosen == [tmp_path / "variable", tmp_path / "option"]


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """What the supervisor writes is what the command sees."""
    place = Layout(tmp_path)
    written = StackRecord(
        state="ready",
        pid=7,
        base_model="m",
        grpc_port=8500,
        stations=[Station(name="api", state="ready", seconds=0.5)],
    )
    place.write_record(written)

    assert place.read_record() == written


def test_read_record_returns_none_without_a_stack(tmp_path: Path) -> None:
    """A directory that is not there is no error."""
    assert Layout(tmp_path / "absent").read_record() is None


def test_read_record_says_what_to_do_about_a_broken_file(tmp_path: Path) -> None:
    """A foreign stack.json is named, with a way out."""
    place = Layout(tmp_path)
    place.record.write_text("{}")
    with pytest.raises(InvalidInput) as failure:
        place.read_record()

    assert "remove the directory" in str(failure.value)


def test_write_atomically_leaves_nothing_behind_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves the old file whole and no temporary one."""

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device", str(target))

    target = tmp_path / "file"
    target.write_text("old")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        layout.write_atomically(target, "new")

    assert ([f.name for f in tmp_path.iterdir()], target.read_text()) == (["file"], "old")
