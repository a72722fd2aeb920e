"""What a call can end with, as the server told it. No I/O."""

from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from loraland_core.errors import LoraLandError

_DETAILS_KEY = "grpc-status-details-bin"
# Nothing was done yet, or doing it again does no harm: a generation changes nothing.
_RETRIABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(frozen=True)
class Details:
    """What a program can act upon; empty where the server said nothing."""

    field: str = ""
    reason: str = ""
    retry_after_s: float | None = None


class CallFailed(LoraLandError):
    """A call that the server refused or did not answer.

    ``field`` names what was wrong in the request, ``reason`` why an adapter is refused.
    """

    def __init__(self, code: grpc.StatusCode, message: str, details: Details) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.details = details

    @property
    def is_retriable(self) -> bool:
        return self.code in _RETRIABLE


def from_rpc_error(error: grpc.aio.AioRpcError) -> CallFailed:
    code, message = error.code(), error.details() or ""
    if code == grpc.StatusCode.CANCELLED:
        # Not by us, or there would be no status: by a replica that was stopped.
        code, message = grpc.StatusCode.UNAVAILABLE, "the replica ended the call"
    return CallFailed(code, message, read_details(error.trailing_metadata()))


def read_details(metadata: Any) -> Details:
    """Return what the trailing metadata says beside the code."""
    data = next((value for key, value in metadata or () if key == _DETAILS_KEY), None)
    if data is None:
        return Details()
    field, reason, retry_after_s = "", "", None
    for packed in status_pb2.Status.FromString(data).details:
        request = error_details_pb2.BadRequest()
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(request) and request.field_violations:
            field = request.field_violations[0].field
        elif packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    return Details(field, reason, retry_after_s)
