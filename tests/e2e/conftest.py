"""The stack that the end-to-end tests share."""

from collections.abc import Iterator

import pytest
from land import Land, small_job
from loraland_core.store import Store, StoreConfig
from loraland_local import credentials, platform


@pytest.fixture(scope="session")
def land(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Land]:
    """A running stack, shared by the tests; gone afterwards."""
    found = Land(tmp_path_factory.mktemp("land"))
    started = found.loraland("up", timeout_s=900)
    assert started.returncode == 0, started.stderr
    yield found
    stopped = found.loraland("down")
    assert stopped.returncode == 0, stopped.stderr
    assert found.num_processes() == 0


@pytest.fixture(scope="session")
def small_adapter(land: Land) -> str:
    """The name of an adapter that a small job has trained and a replica serves."""
    applied = land.apply(small_job("small"))
    assert applied.returncode == 0, applied.stderr
    land.wait("finetunejob", "small", "Succeeded")
    land.wait("adapter", "small", "Ready", timeout_s=120)
    return "small"


@pytest.fixture(scope="session")
def store(land: Land) -> Iterator[Store]:
    """The stack's artifact store, as somebody with its keys uses it."""
    known = credentials.ensure(land.place)
    record = land.place.read_record()
    assert record is not None
    opened = Store(
        StoreConfig(bucket=platform.BUCKET, endpoint_url=record.store_url),
        credentials={
            "aws_access_key_id": known.store_access_key,
            "aws_secret_access_key": known.store_secret_key,
        },
    )
    yield opened
    opened.close()
