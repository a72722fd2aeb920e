"""What can go wrong for a caller beyond ``loraland_core.errors``. The gRPC status is chosen elsewhere."""

from loraland_core.errors import LoraLandError, Unavailable


class QueueFull(Unavailable):
    """The server has as much work as it takes; come back later."""


class OverQuota(Unavailable):
    """The caller's tenant takes as much as it may; come back later.

    ``reason`` says which limit: ConcurrencyLimit, RequestRateLimit, TokenRateLimit.
    """

    def __init__(self, message: str, *, reason: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.reason = reason


class DeadlinePassed(LoraLandError):
    """The caller's deadline passed; the work was stopped."""


class InternalFault(LoraLandError):
    """Our own mistake, told without its particulars: the log has them under the same id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"internal error, see the server's log with request id {request_id}")


class Unauthenticated(LoraLandError):
    """No credentials, or none that are known."""


class PermissionDenied(LoraLandError):
    """Known, but not allowed to do this."""
