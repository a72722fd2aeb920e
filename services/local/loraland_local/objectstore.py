"""The laptop's S3: moto's server, with every object kept as a file as well.

moto holds objects in memory. After a change the objects are copied to ``<folder>/<bucket>/<key>``, and
at the next start they are put back; so artifacts survive the stack and can be looked at.
"""

import argparse
import hashlib
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import boto3
import botocore.exceptions
from botocore.config import Config
from loraland_core import logs

_log = logging.getLogger(__name__)
_SETTLE_S = 0.3
_CHANGING = frozenset({"PUT", "POST", "DELETE"})
_CHUNK_BYTES = 1024 * 1024

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Mirror:
    """Copies between a running S3 server and a folder."""

    def __init__(self, client: Any, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._known: dict[Path, str] = {}

    def restore(self) -> int:
        """Put the folder's objects into the server; return how many."""
        files = self._files()
        for bucket in sorted({f.relative_to(self._folder).parts[0] for f in files}):
            self._client.create_bucket(Bucket=bucket)
        for file in files:
            bucket, *parts = file.relative_to(self._folder).parts
            key = "/".join(unquote(part) for part in parts)
            self._client.upload_file(str(file), bucket, key)
        return len(files)

    def ensure_bucket(self, bucket: str) -> None:
        # In us-east-1 a bucket that is there already is no error.
        self._client.create_bucket(Bucket=bucket)

    def save(self) -> None:
        """Make the folder hold exactly what the server holds."""
        found: dict[Path, str] = {}
        for bucket in (b["Name"] for b in self._client.list_buckets()["Buckets"]):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            for page in pages:
                for item in page.get("Contents", []):
                    path = object_path(self._folder, bucket, item["Key"])
                    found[path] = item["ETag"]
                    if self._known.get(path) != item["ETag"] or not path.exists():
                        self._download(bucket, item["Key"], path)
        for file in self._files():
            if file not in found:
                file.unlink(missing_ok=True)
        self._known = found

    def _files(self) -> list[Path]:
        return sorted(f for f in self._folder.rglob("*") if f.is_file() and not _is_partial(f))

    def _download(self, bucket: str, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{hashlib.sha256(key.encode()).hexdigest()[:16]}.partial")
        body = self._client.get_object(Bucket=bucket, Key=key)["Body"]
        try:
            with partial.open("wb") as file:
                shutil.copyfileobj(body, file, _CHUNK_BYTES)
        finally:
            body.close()
        partial.replace(path)


def object_path(folder: Path, bucket: str, key: str) -> Path:
    """Return where an object is kept; no key leads outside of the bucket's folder."""
    parts = [quote(part, safe=" !$&'()+,;=@") for part in key.split("/")]
    # Neither "." nor an empty part is a file name, and a leading dot is kept for partial files.
    safe = [f"%2E{part[1:]}" if part.startswith(".") else part or "%" for part in parts]
    return folder.joinpath(bucket, *safe)


def _is_partial(file: Path) -> bool:
    return file.name.startswith(".")


def watch_changes(application: Application, changed: threading.Event) -> Application:
    """Wrap a WSGI application so that requests that may change something set ``changed``."""

    def wrapped(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        reply = application(environ, start_response)
        if environ.get("REQUEST_METHOD") in _CHANGING:
            changed.set()
        return reply

    return wrapped


def main() -> None:
    arguments = _parse_arguments()
    logs.configure()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    changed = threading.Event()
    server = _build_server(arguments.host, arguments.port, changed)
    threading.Thread(target=server.serve_forever, name="moto", daemon=True).start()
    mirror = Mirror(_build_client(arguments.host, arguments.port), arguments.folder)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    num_restored = mirror.restore()
    mirror.ensure_bucket(arguments.bucket)
    _log.info("bucket %s, %d objects from %s", arguments.bucket, num_restored, arguments.folder)
    arguments.ready_file.write_text(str(os.getpid()))
    while not stopping.is_set():
        if changed.wait(_SETTLE_S):
            changed.clear()
            stopping.wait(_SETTLE_S)
            _save(mirror)
    _save(mirror)
    server.shutdown()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loraland_local.objectstore", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    return parser.parse_args()


def _build_server(host: str, port: int, changed: threading.Event) -> Any:
    # moto takes its own port from here when it builds addresses of itself.
    os.environ["MOTO_PORT"] = str(port)
    from moto.moto_server import werkzeug_app  # noqa: PLC0415 (a second; only the server needs it)
    from werkzeug.serving import make_server  # noqa: PLC0415

    application = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
    return make_server(
        host,
        port,
        watch_changes(application, changed),
        threaded=True,
        request_handler=werkzeug_app.MotoRequestHandler,
    )


def _build_client(host: str, port: int) -> Any:
    session: Any = boto3.session.Session()
    return session.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="mirror",
        aws_secret_access_key="mirror",  # noqa: S106 (moto asks for any)
        config=Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "max_attempts": 4},
            s3={"addressing_style": "path"},
        ),
    )


def _save(mirror: Mirror) -> None:
    try:
        mirror.save()
    except (OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        _log.warning("objects are kept in memory alone for now: %s", error)


if __name__ == "__main__":
    main()
