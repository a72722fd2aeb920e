"""The store in memory, the one in a folder and the real one keep the same contract."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_store import FakeStore
from loraland_core.errors import InvalidInput, NotFound
from loraland_core.folder_store import FolderStore
from loraland_core.store import Store


@pytest.fixture(params=["real", "fake", "folder"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "real":
        opened: Store = request.getfixturevalue("store")
        return opened
    return FakeStore() if request.param == "fake" else FolderStore(tmp_path / "store")


def test_objects_come_and_go(any_store: Store, local_file: Path, tmp_path: Path) -> None:
    """Write, upload, list in order, download with its hash, delete by prefix."""
    any_store.write("b/two", b"2")
    any_store.upload(local_file, "b/one")

    listed = [(found.key, found.size_bytes) for found in any_store.find_objects("b/")]
    sha256 = any_store.download("b/two", tmp_path / "two", max_bytes=1)

    assert listed == [("b/one", 7), ("b/two", 1)]
    assert sha256.startswith("d4735e3a")
    assert any_store.key(any_store.uri("b/one")) == "b/one"
    assert any_store.delete_prefix("b/") == 2
    assert any_store.delete_prefix("b/") == 0
    assert not any_store.exists("b/one")


@pytest.mark.parametrize(
    ("act", "error"),
    [
        pytest.param(lambda s, _: s.read("absent"), NotFound, id="read-absent"),
        pytest.param(
            lambda s, p: s.download("absent", p, max_bytes=9), NotFound, id="download-absent"
        ),
        pytest.param(lambda s, _: s.read("key", max_bytes=1), InvalidInput, id="read-too-large"),
        pytest.param(
            lambda s, p: s.download("key", p, max_bytes=1), InvalidInput, id="download-too-large"
        ),
    ],
)
def test_errors_are_the_same(
    any_store: Store, tmp_path: Path, act: Callable[[Store, Path], object], error: type[Exception]
) -> None:
    """What is not there and what is too large are told apart."""
    any_store.write("key", b"content")

    with pytest.raises(error):
        act(any_store, tmp_path / "file")
