"""Volumes on disk."""

import pathlib

import pytest
from loraland_local.kubelet import volumes
from loraland_local.kubelet.projections import File


def read_all(directory: pathlib.Path) -> dict[str, str]:
    """Return what a program sees: visible files and their content."""
    return {
        str(path.relative_to(directory)): path.read_text()
        for name in sorted(directory.iterdir())
        if not name.name.startswith("..")
        for path in ([name] if name.is_file() else sorted(name.rglob("*")))
    }


def test_files_are_replaced_together(tmp_path: pathlib.Path) -> None:
    """New files appear, changed ones change, removed ones vanish, and nothing old is kept."""
    first = {"a": File(b"1", 0o644), "d/b": File(b"2", 0o400)}
    volumes.write_files(tmp_path, first)
    before = read_all(tmp_path)
    mode = (tmp_path / "d" / "b").stat().st_mode & 0o777
    volumes.write_files(tmp_path, {"a": File(b"3", 0o644), "c": File(b"4", 0o644)})

    assert (before, mode) == ({"a": "1", "d/b": "2"}, 0o400)
    assert read_all(tmp_path) == {"a": "3", "c": "4"}
    assert len(list(tmp_path.glob("..2*"))) == 1


def test_open_directory_follows_the_swap(tmp_path: pathlib.Path) -> None:
    """A file that is opened again by its path shows the new content, never half of it."""
    volumes.write_files(tmp_path, {"token": File(b"old", 0o600)})
    path = tmp_path / "token"
    volumes.write_files(tmp_path, {"token": File(b"new", 0o600)})

    assert path.read_text() == "new"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../x", id="parent"),
        pytest.param("/x", id="absolute"),
        pytest.param("", id="empty"),
    ],
)
def test_path_outside_the_volume_is_refused(tmp_path: pathlib.Path, path: str) -> None:
    """No key writes anywhere but into its volume."""
    with pytest.raises(ValueError, match="must be relative and stay inside"):
        volumes.write_files(tmp_path / "v", {path: File(b"", 0o644)})


def test_mounts_are_laid_out_outer_first(tmp_path: pathlib.Path) -> None:
    """A mount inside another one, a single file and an expanded sub-path are where they should be."""
    outer, inner, files = tmp_path / "outer", tmp_path / "inner", tmp_path / "files"
    for directory in (outer, inner):
        directory.mkdir()
    volumes.write_files(files, {"one": File(b"1", 0o644)})
    mounts = [
        {"name": "inner", "mountPath": "/data/deep"},
        {"name": "outer", "mountPath": "/data"},
        {"name": "files", "mountPath": "/etc/one.txt", "subPath": "one"},
        {"name": "outer", "mountPath": "/mine", "subPathExpr": "$(POD)"},
    ]
    container = {"name": "c", "volumeMounts": mounts}
    root = tmp_path / "root"
    named = {"outer": outer, "inner": inner, "files": files}
    volumes.lay_out(container, root, named, {"POD": "p"})
    (root / "data" / "deep" / "x").write_text("x")

    assert (inner / "x").read_text() == "x"
    assert (root / "etc" / "one.txt").read_text() == "1"
    assert (root / "mine").resolve() == outer / "p"


def test_path_of_a_container_stays_below_its_root(tmp_path: pathlib.Path) -> None:
    """A path that climbs up ends at the root, as in a real container."""
    assert volumes.under(tmp_path, "/../../etc/x") == tmp_path / "etc" / "x"
