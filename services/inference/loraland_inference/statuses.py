"""The one table from our errors to gRPC statuses, with details that a program can read. No I/O."""

import logging
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message as Proto
from google.rpc import error_details_pb2, status_pb2
from loraland_core.errors import (
    ArtifactInvalid,
    InvalidInput,
    LoraLandError,
    NotFound,
    Unavailable,
)

from loraland_inference.failures import (
    DeadlinePassed,
    InternalFault,
    OverQuota,
    PermissionDenied,
    QueueFull,
    Unauthenticated,
)

log = logging.getLogger("loraland.grpc")

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "loraland.dev"
# The first class that matches decides, so that a subclass stands before its base.
_CODES: tuple[tuple[type[LoraLandError], grpc.StatusCode], ...] = (
    (ArtifactInvalid, grpc.StatusCode.FAILED_PRECONDITION),
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (OverQuota, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (DeadlinePassed, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (InternalFault, grpc.StatusCode.INTERNAL),
)


def code_of(error: BaseException) -> grpc.StatusCode:
    return next((c for kind, c in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def details_of(error: BaseException) -> list[Proto]:
    """Return what the caller can act upon: the field, the reason, or when to come back."""
    if isinstance(error, ArtifactInvalid):
        return [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=str(error)
        )
        return [error_details_pb2.BadRequest(field_violations=[violation])]
    if isinstance(error, Unavailable):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        retry = error_details_pb2.RetryInfo(retry_delay=delay)
        if isinstance(error, OverQuota):
            return [retry, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
        return [retry]
    return []


def trailers_of(error: BaseException, message: str) -> tuple[tuple[str, bytes], ...]:
    details = details_of(error)
    if not details:
        return ()
    status = status_pb2.Status(code=code_of(error).value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return ((DETAILS_KEY, status.SerializeToString()),)


async def abort(context: Any, error: BaseException) -> None:
    """End the call with the error's status."""
    code = code_of(error)
    # What nobody foresaw may hold what is not the caller's to see.
    message = str(error) if isinstance(error, LoraLandError) else "internal error; see the log"
    await context.abort(code, message, trailing_metadata=trailers_of(error, message))


class Answering:
    """Answers whatever is raised within by its status. Never swallows."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def __aenter__(self) -> None:
        """Nothing to prepare."""

    async def __aexit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError):
            # Nothing is wrong, the caller is gone, or it was answered already.
            return
        if not isinstance(error, LoraLandError):
            log.error("a call failed in a way that nobody foresaw", exc_info=error)
        await abort(self._context, error)
