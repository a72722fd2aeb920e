"""Fixtures of the integration tests: real servers, and a bucket of each test's own."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import api_servers
import boto3
import pytest
import servers
from loraland_core.store import Store, StoreConfig


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """An S3 server for the whole run."""
    port = servers.free_port()
    with servers.s3_process(port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis server for the whole run."""
    port = servers.free_port()
    with servers.redis_process(port):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def store_config(s3_url: str) -> StoreConfig:
    """A bucket of the test's own."""
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    client = boto3.session.Session().client(
        "s3", endpoint_url=s3_url, region_name="us-east-1", **servers.S3_CREDENTIALS
    )
    client.create_bucket(Bucket=bucket)
    client.close()
    return StoreConfig(bucket=bucket, prefix="land", endpoint_url=s3_url)


@pytest.fixture
def store(store_config: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A door to a bucket of the test's own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", servers.S3_CREDENTIALS["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", servers.S3_CREDENTIALS["aws_secret_access_key"])
    opened = Store(store_config)
    yield opened
    opened.close()


@pytest.fixture
def local_file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def api_server(tmp_path: Path) -> Iterator[Path]:
    """An embedded Kubernetes API of the test's own; the value is its kubeconfig."""
    with api_servers.api_process(tmp_path / "api") as kubeconfig:
        yield kubeconfig
