"""Where the laptop keeps its S3 objects."""

import threading
from pathlib import Path

import pytest
from loraland_local import objectstore

FOLDER = Path("/state/s3")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param("adapters/ns/a/manifest.json", "adapters/ns/a/manifest.json", id="plain"),
        pytest.param("a b/ü.txt", "a b/%C3%BC.txt", id="other-letters"),
        pytest.param("../../etc/passwd", "%2E./%2E./etc/passwd", id="upwards"),
        pytest.param("/rooted", "%/rooted", id="rooted"),
        pytest.param(".hidden", "%2Ehidden", id="hidden"),
        pytest.param("folder/", "folder/%", id="folder-marker"),
    ],
)
def test_object_path_stays_below_the_bucket(key: str, expected: str) -> None:
    """Whatever a key is called, its file lies in its bucket's folder."""
    path = objectstore.object_path(FOLDER, "bucket", key)

    assert path == FOLDER / "bucket" / expected


@pytest.mark.parametrize(
    ("method", "expected"), [("PUT", True), ("POST", True), ("DELETE", True), ("GET", False)]
)
def test_watch_changes_notes_requests_that_may_change_something(
    method: str, expected: bool
) -> None:
    """Reading does not make the mirror work."""
    changed = threading.Event()
    application = objectstore.watch_changes(lambda *_: [b"ok"], changed)
    reply = application({"REQUEST_METHOD": method}, None)

    assert (reply, changed.is_set()) == ([b"ok"], expected)
