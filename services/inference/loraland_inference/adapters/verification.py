"""Is a record's artifact there, whole by its manifest, and made for this base model? Reads S3 only.

It happens right after a record is read, before anybody asks for the adapter; the files themselves
are hashed when they are fetched.
"""

import asyncio
import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from loraland_core import artifacts
from loraland_core.artifacts import Manifest
from loraland_core.errors import InvalidInput, LoraLandError, NotFound, Unavailable
from loraland_core.keys import AdapterRecord, Rejection
from loraland_core.names import Reason
from loraland_core.store import Store

from loraland_inference.adapters.registry import Registry

log = logging.getLogger("loraland.adapters")

CONCURRENT = 8
RETRY_S = 3.0


class ArtifactElsewhere(LoraLandError):
    """A record points outside this platform's bucket and prefix."""


@dataclass(frozen=True)
class Expectation:
    """What an adapter must fit."""

    base_model: str
    resolved_revision: str
    max_rank: int


def judge(record: AdapterRecord, data: bytes | None, expected: Expectation) -> Rejection | None:
    """Return why the artifact is refused; ``data`` is its manifest, or None where there is none."""
    if data is None:
        return _rejection(record, Reason.MANIFEST_MISSING, f"{record.uri} has no manifest")
    try:
        manifest = artifacts.parse_manifest(data, expected_digest=record.digest)
    except InvalidInput as error:
        return Rejection(digest=record.digest, reason=error.reason, message=str(error))
    return _judge_fit(record, manifest, expected)


def _judge_fit(
    record: AdapterRecord, manifest: Manifest, expected: Expectation
) -> Rejection | None:
    made_for = (manifest.base_model, manifest.resolved_revision)
    if made_for != (expected.base_model, expected.resolved_revision):
        return _rejection(
            record,
            Reason.BASE_MODEL_MISMATCH,
            f"made for {made_for[0]} at {made_for[1]};"
            f" this replica serves {expected.base_model} at {expected.resolved_revision}",
        )
    if manifest.rank > expected.max_rank:
        return _rejection(
            record,
            Reason.RANK_OVER_LIMIT,
            f"rank {manifest.rank} is over the limit of {expected.max_rank}",
        )
    return None


async def run(registry: Registry, store: Store, expected: Expectation) -> None:
    """Verify what is new in the registry until cancelled; one that waits holds up no other."""
    changed = asyncio.Event()
    registry.on_change = changed.set
    executor = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="verify")
    running: dict[tuple[str, str], asyncio.Task[None]] = {}
    try:
        while True:
            changed.clear()
            for adapter_id, record in registry.unverified():
                key = (adapter_id, record.digest)
                if key not in running:
                    work = _verify(registry, store, expected, executor, adapter_id, record)
                    running[key] = asyncio.create_task(work)
                    running[key].add_done_callback(functools.partial(_forget, running, key))
            # Not ``wait_for``: Python 3.11's loses a cancellation that comes together with the change.
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await changed.wait()
    finally:
        for task in running.values():
            task.cancel()
        executor.shutdown(wait=False, cancel_futures=True)


def _forget(
    running: dict[tuple[str, str], asyncio.Task[None]],
    key: tuple[str, str],
    _: asyncio.Task[None],
) -> None:
    del running[key]


async def _verify(  # noqa: PLR0917 (its one caller passes what it was given)
    registry: Registry,
    store: Store,
    expected: Expectation,
    executor: ThreadPoolExecutor,
    adapter_id: str,
    record: AdapterRecord,
) -> None:
    """Reach a verdict, unless the store is away: then it is tried again."""
    try:
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(executor, _read_manifest, store, record)
    except Unavailable as error:
        log.warning("%s cannot be verified yet: %s", adapter_id, error)
        return
    except InvalidInput as error:
        # No bucket or no access: the platform's fault, not the adapter's.
        log.error("%s cannot be verified: %s", adapter_id, error)
        return
    except ArtifactElsewhere as error:
        rejection: Rejection | None = _rejection(record, Reason.ARTIFACT_INVALID, str(error))
    else:
        rejection = judge(record, data, expected)
    registry.set_verified(adapter_id, record, rejection)
    if rejection is not None:
        log.warning("%s is refused: %s: %s", adapter_id, rejection.reason, rejection.message)


def _read_manifest(store: Store, record: AdapterRecord) -> bytes | None:
    try:
        key = store.key(record.uri.rstrip("/") + "/" + artifacts.MANIFEST_FILE)
    except InvalidInput as error:
        raise ArtifactElsewhere(str(error)) from error
    try:
        return store.read(key, max_bytes=artifacts.MAX_MANIFEST_BYTES)
    except NotFound:
        return None


def _rejection(record: AdapterRecord, reason: Reason, message: str) -> Rejection:
    return Rejection(digest=record.digest, reason=reason.value, message=message)
