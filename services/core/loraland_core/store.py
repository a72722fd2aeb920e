"""The S3 door: every read and write of the artifact store goes through here.

Synchronous (boto3); asynchronous callers wrap it in ``asyncio.to_thread``. Credentials come from the
environment or the pod's identity, never from a document. Keys are relative to the platform's prefix.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from loraland_core import transfers
from loraland_core.errors import InvalidInput, NotFound, Unavailable
from loraland_core.resources.common import Model

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
MAX_ATTEMPTS = 4
MAX_CONNECTIONS = 32
CHUNK_BYTES = 1024 * 1024
MAX_SMALL_OBJECT_BYTES = 4 * 1024 * 1024

# Where the store does not tell a time.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_DENIED = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden"}


class StoreConfig(Model):
    """Where artifacts lie. Holds no secret, so it may stand in a ConfigMap."""

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str = "us-east-1"


@dataclass(frozen=True)
class StoredObject:
    key: str
    size_bytes: int
    # Changes with the content; nothing else is known of it.
    etag: str = ""
    modified_at: datetime = EPOCH


@dataclass(frozen=True)
class UnfinishedUpload:
    """An upload in parts that was begun and not completed; its parts cost as much as objects do."""

    key: str
    upload_id: str
    begun_at: datetime


class Store:
    """One bucket and prefix.

    Raises ``NotFound`` for a missing key, ``InvalidInput`` for a missing bucket or denied access,
    ``Unavailable`` where the store does not answer.
    """

    def __init__(self, config: StoreConfig, *, credentials: dict[str, str] | None = None) -> None:
        self.config = config
        prefix = config.prefix.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        # A client of its own session: boto3's default session is not safe to share with threads.
        session: Any = boto3.session.Session()
        self._client = session.client(
            "s3",
            endpoint_url=config.endpoint_url,
            region_name=config.region,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=MAX_CONNECTIONS,
                # What is read here is held against a sha256. Without it a download asks for the
                # object's size first, one request more for each file.
                response_checksum_validation="when_required",
                retries={"mode": "standard", "max_attempts": MAX_ATTEMPTS},
                s3={"addressing_style": "path"} if config.endpoint_url else None,
            ),
            **(credentials or {}),
        )

    def close(self) -> None:
        self._client.close()

    def uri(self, key: str) -> str:
        return f"s3://{self.config.bucket}/{self._prefix}{key}"

    def key(self, uri: str) -> str:
        """Return the key of a URI of this store; raise ``InvalidInput`` for another's."""
        base = f"s3://{self.config.bucket}/{self._prefix}"
        if not uri.startswith(base):
            raise InvalidInput(f"{uri} is not below {base}", field="uri", reason="ArtifactInvalid")
        return uri[len(base) :]

    def read(self, key: str, *, max_bytes: int = MAX_SMALL_OBJECT_BYTES) -> bytes:
        """Return a small object whole; one over ``max_bytes`` is refused."""
        with self._translated(key):
            response = self._client.get_object(Bucket=self.config.bucket, Key=self._prefix + key)
            body = response["Body"]
            try:
                data: bytes = body.read(max_bytes + 1)
            finally:
                body.close()
        if len(data) > max_bytes:
            raise InvalidInput(f"is larger than {max_bytes} bytes", field=self.uri(key))
        return data

    def write(self, key: str, data: bytes) -> None:
        with self._translated(key):
            self._client.put_object(Bucket=self.config.bucket, Key=self._prefix + key, Body=data)

    def upload(self, path: Path, key: str) -> None:
        with self._translated(key):
            self._client.upload_file(str(path), self.config.bucket, self._prefix + key)

    def download(self, key: str, path: Path, *, max_bytes: int) -> str:
        """Write the object to ``path`` and return its sha256; more than ``max_bytes`` is refused."""
        with self._translated(key):
            self._client.download_file(
                self.config.bucket,
                self._prefix + key,
                str(path),
                Callback=transfers.Watch(self.uri(key), max_bytes=max_bytes),
                Config=transfers.build_config(max_bytes),
            )
        sha256 = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                sha256.update(chunk)
        return sha256.hexdigest()

    def exists(self, key: str) -> bool:
        try:
            with self._translated(key):
                self._client.head_object(Bucket=self.config.bucket, Key=self._prefix + key)
        except NotFound:
            return False
        return True

    def find_objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects below ``prefix``, keys relative to the platform's prefix."""
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.config.bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield StoredObject(
                        item["Key"][len(self._prefix) :],
                        item["Size"],
                        item.get("ETag", ""),
                        item["LastModified"],
                    )

    def find_uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Yield the uploads in parts below ``prefix`` that are not completed."""
        with self._translated(prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.config.bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for item in page.get("Uploads", []):
                    key = item["Key"][len(self._prefix) :]
                    yield UnfinishedUpload(key, item["UploadId"], item["Initiated"])

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Give up an upload in parts; one that has been completed or given up is fine."""
        try:
            with self._translated(upload.key):
                self._client.abort_multipart_upload(
                    Bucket=self.config.bucket,
                    Key=self._prefix + upload.key,
                    UploadId=upload.upload_id,
                )
        except NotFound:
            return

    def delete(self, key: str) -> None:
        """Delete one object; one that is not there is fine."""
        with self._translated(key):
            self._client.delete_object(Bucket=self.config.bucket, Key=self._prefix + key)

    def delete_prefix(self, prefix: str) -> int:
        """Delete everything below ``prefix``, which must end in a slash; return how many.

        Raises ``Unavailable`` where one object stays.
        """
        assert len(prefix) > 1, prefix
        assert prefix.endswith("/"), prefix
        keys = [self._prefix + found.key for found in self.find_objects(prefix)]
        for start in range(0, len(keys), 1000):
            with self._translated(prefix):
                answer = self._client.delete_objects(
                    Bucket=self.config.bucket,
                    Delete={"Objects": [{"Key": k} for k in keys[start : start + 1000]]},
                )
            # S3 answers 200 and says in the body which objects it kept.
            for kept in answer.get("Errors", []):
                raise Unavailable(
                    f"artifact store kept {self.uri(prefix)}: {kept.get('Code')}"
                    f" ({kept.get('Message')}) for {kept.get('Key')}"
                )
        return len(keys)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Turn boto3's errors into ours."""
        where = self.config.endpoint_url or "S3"
        try:
            yield
        except botocore.exceptions.ClientError as error:
            raise self._client_error(error, key) from error
        except botocore.exceptions.NoCredentialsError as error:
            raise InvalidInput(
                "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a Secret"
                " that has them, or give the service account access",
                field=self.uri(key),
                reason="StoreCredentialsMissing",
            ) from error
        except (
            boto3.exceptions.S3UploadFailedError,
            botocore.exceptions.BotoCoreError,
            *transfers.FAILURES,
        ) as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, botocore.exceptions.ClientError):
                raise self._client_error(cause, key) from error
            raise Unavailable(f"artifact store at {where} does not answer: {error}") from error

    def _client_error(
        self, error: botocore.exceptions.ClientError, key: str
    ) -> NotFound | InvalidInput | Unavailable:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code == "NoSuchBucket":
            return InvalidInput(
                f"there is no bucket {self.config.bucket!r}",
                field=self.uri(key),
                reason="BucketNotFound",
            )
        if code in _MISSING:
            return NotFound(f"{self.uri(key)} does not exist")
        if code in _DENIED:
            return InvalidInput(
                f"access denied ({code}); check the credentials and the bucket's policy",
                field=self.uri(key),
                reason="StoreAccessDenied",
            )
        return Unavailable(f"artifact store answered {code or error} for {self.uri(key)}")


def parse_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key``; raise ``InvalidInput`` for anything else."""
    bucket, slash, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not slash or not key:
        raise InvalidInput(f"expected s3://bucket/key, found {uri!r}", field="uri")
    return bucket, key
