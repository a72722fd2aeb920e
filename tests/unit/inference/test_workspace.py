"""Folders of one process on a disk that others share: who may remove what."""

import subprocess
import sys
from pathlib import Path

from loraland_inference.adapters import workspace
from loraland_inference.adapters.workspace import Workspace


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_folder_of_a_living_process_stays(tmp_path: Path) -> None:
    """A second one on the same disk leaves the first one's files alone."""
    first, second = Workspace(tmp_path), Workspace(tmp_path)
    first.open()
    (first.folder / "half").touch()
    second.open()

    assert (first.folder / "half").exists()
    first.close()
    second.close()
    assert names(tmp_path) == []


def test_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    """Its lock is free, however it ended."""
    program = (
        "import os, sys; from pathlib import Path;"
        "from loraland_inference.adapters.workspace import Workspace;"
        "w = Workspace(Path(sys.argv[1])); w.open(); (w.folder / 'half').touch(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    left = [name for name in names(tmp_path) if not name.endswith(".lock")]
    after = Workspace(tmp_path)
    after.open()
    found = names(tmp_path)
    after.close()

    assert len(left) == 1
    assert found == [after.folder.name, f"{after.folder.name}.lock"]


def test_folders_of_earlier_releases_are_removed(tmp_path: Path) -> None:
    """They knew no locks; what they fetch again costs bandwidth alone."""
    (tmp_path / ".partial-x" / "d").mkdir(parents=True)
    opened = Workspace(tmp_path)
    opened.open()
    opened.close()

    assert names(tmp_path) == []


def test_disk_has_one_name_for_all(tmp_path: Path) -> None:
    """Whoever comes first gives it, and it stays."""
    first, second = (workspace.node_id(tmp_path) for _ in range(2))

    assert len(first) == 32
    assert (second, names(tmp_path)) == (first, [".node-id"])
