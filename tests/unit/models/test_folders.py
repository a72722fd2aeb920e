"""A cached folder is made once and appears whole."""

import threading
from pathlib import Path

import pytest
from loraland_models import folders


def fill(target: Path) -> None:
    (target / "file").write_text("whole")


def test_folder_is_filled_once(tmp_path: Path) -> None:
    """A folder that is there is left as it is."""
    folder = folders.ensure_folder(tmp_path / "model", fill, report=print)
    (folder / "file").write_text("kept")

    folders.ensure_folder(folder, fill, report=print)

    assert (folder / "file").read_text() == "kept"


def test_nothing_appears_when_filling_fails(tmp_path: Path) -> None:
    """No half-made folder stays behind, neither under its name nor a temporary one."""

    def fail(target: Path) -> None:
        fill(target)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        folders.ensure_folder(tmp_path / "model", fail, report=print)

    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]


def test_second_caller_waits_for_the_first(tmp_path: Path) -> None:
    """Two at once: one fills, the other waits, says so, and finds the folder."""
    reports: list[str] = []
    entered, finish = threading.Event(), threading.Event()
    fills = []

    def slowly(target: Path) -> None:
        fills.append(target)
        entered.set()
        assert finish.wait(10)
        fill(target)

    def report(text: str) -> None:
        reports.append(text)
        finish.set()

    first = threading.Thread(
        target=folders.ensure_folder, args=(tmp_path / "m", slowly), kwargs={"report": print}
    )
    first.start()
    assert entered.wait(10)
    folders.ensure_folder(tmp_path / "m", slowly, report=report)
    first.join(10)

    assert len(fills) == 1
    assert reports == ["waiting for another process that is preparing .m"]
