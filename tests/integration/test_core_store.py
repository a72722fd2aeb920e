"""The S3 door against a real S3 server."""

import hashlib
from pathlib import Path

import pytest
import servers
from loraland_core import store as stores
from loraland_core.errors import InvalidInput, NotFound, Unavailable
from loraland_core.store import Store, StoreConfig


def test_object_survives_a_round_trip(store: Store) -> None:
    """What is written is what is read, below the platform's prefix."""
    store.write("a/b.json", b"{}")

    assert store.read("a/b.json") == b"{}"
    assert store.uri("a/b.json").endswith("/land/a/b.json")
    assert store.key(store.uri("a/b.json")) == "a/b.json"


def test_download_returns_the_hash_of_what_arrived(
    store: Store, local_file: Path, tmp_path: Path
) -> None:
    """The hash is taken while the bytes stream."""
    store.upload(local_file, "file")

    sha256 = store.download("file", tmp_path / "copy", max_bytes=7)

    assert sha256 == hashlib.sha256(b"content").hexdigest()
    assert (tmp_path / "copy").read_bytes() == b"content"


def test_larger_than_announced_is_refused(store: Store, local_file: Path, tmp_path: Path) -> None:
    """A body longer than its manifest says never fills the disk."""
    store.upload(local_file, "file")

    with pytest.raises(InvalidInput, match="larger than the 6 bytes announced"):
        store.download("file", tmp_path / "copy", max_bytes=6)
    with pytest.raises(InvalidInput, match="larger than 6 bytes"):
        store.read("file", max_bytes=6)


def test_delete_takes_one_prefix_alone(store: Store) -> None:
    """Deleting one version leaves its neighbours."""
    for key in ("v1/a", "v1/b", "v10/a"):
        store.write(key, b"x")

    deleted = store.delete_prefix("v1/")

    assert deleted == 2
    assert [found.key for found in store.find_objects("v")] == ["v10/a"]
    assert not store.exists("v1/a")
    assert store.exists("v10/a")


def test_delete_says_what_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 reports an object that may not be deleted within a good answer."""
    store.write("v1/a", b"x")
    denied = {"Errors": [{"Key": "land/v1/a", "Code": "AccessDenied", "Message": "no"}]}
    monkeypatch.setattr(store._client, "delete_objects", lambda **_: denied)

    with pytest.raises(Unavailable, match="AccessDenied"):
        store.delete_prefix("v1/")


def test_missing_key_is_not_found(store: Store) -> None:
    """A key that is not there is told apart from a store that is not there."""
    with pytest.raises(NotFound, match="nothing"):
        store.read("nothing")


def test_missing_bucket_is_named(store_config: StoreConfig, store: Store) -> None:
    """A typo in the bucket's name is the administrator's to mend."""
    other = Store(store_config.model_copy(update={"bucket": "no-such-bucket"}))

    with pytest.raises(InvalidInput, match="no bucket 'no-such-bucket'") as caught:
        other.read("key")

    other.close()
    assert caught.value.reason == "BucketNotFound"


def test_store_that_is_down_is_unavailable(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Nobody listening is worth a retry later, after few and short attempts."""
    monkeypatch.setattr(stores, "MAX_ATTEMPTS", 2)
    down = Store(StoreConfig(bucket="b", endpoint_url=f"http://127.0.0.1:{servers.free_port()}"))

    with pytest.raises(Unavailable, match="does not answer"):
        down.read("key")

    down.close()


def test_foreign_uri_is_refused(store: Store) -> None:
    """A URI of another bucket never turns into a key of this one."""
    with pytest.raises(InvalidInput, match="is not below"):
        store.key("s3://other/land/a")


@pytest.mark.parametrize("uri", ["http://b/k", "s3://b", "s3:///k", "s3://b/"])
def test_uri_must_name_bucket_and_key(uri: str) -> None:
    """Half a URI is an error that shows the form."""
    with pytest.raises(InvalidInput, match="expected s3://bucket/key"):
        stores.parse_uri(uri)
