"""``loraland sweep`` on a stack: a look first, then the removal."""

from land import Land
from loraland_core import artifacts
from loraland_core.store import Store


def test_sweep_shows_before_it_removes(land: Land, store: Store) -> None:
    """An upload that was begun long ago and never finished; whatever is young stays."""
    key = artifacts.adapter_prefix("default", "swept", "a" * 64) + artifacts.WEIGHTS_FILE
    store.write(key, b"of today")
    # The stack's S3 says of every upload in parts that it is years old.
    store._client.create_multipart_upload(Bucket=store.config.bucket, Key=key)
    shown = land.loraland("sweep")
    before = [upload.key for upload in store.find_uploads("")]
    removed = land.loraland("sweep", "--remove")
    after = [upload.key for upload in store.find_uploads("")]
    is_there = store.exists(key)
    store.delete(key)

    assert (shown.returncode, removed.returncode) == (0, 0), shown.stderr + removed.stderr
    assert key in shown.stdout
    assert (before, after, is_there) == ([key], [], True)
