"""Mounted files are found in a container and on the laptop."""

from pathlib import Path

import pytest
from loraland_core import paths


def test_mount_path_is_itself_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a root of its own a pod sees its volumes where they are mounted."""
    monkeypatch.delenv(paths.ROOT_VARIABLE, raising=False)

    assert paths.mounted("/etc/loraland/job.json") == Path("/etc/loraland/job.json")


def test_mount_path_lies_below_the_root_on_the_laptop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kubelet of the laptop lays volumes out below a folder."""
    (tmp_path / "etc").mkdir()
    monkeypatch.setenv(paths.ROOT_VARIABLE, str(tmp_path))

    assert paths.mounted("/etc") == tmp_path / "etc"
    assert paths.mounted("/var/nothing") == Path("/var/nothing")
