"""The one table from errors to gRPC statuses."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from loraland_client.failures import Details, read_details
from loraland_core.errors import ArtifactInvalid, InvalidInput, NotFound, Unavailable
from loraland_inference import statuses
from loraland_inference.failures import (
    DeadlinePassed,
    InternalFault,
    PermissionDenied,
    QueueFull,
    Unauthenticated,
)

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("error", "code", "details"),
    [
        (InvalidInput("bad", field="a.b"), Code.INVALID_ARGUMENT, Details(field="a.b")),
        (NotFound("no"), Code.NOT_FOUND, Details()),
        (
            ArtifactInvalid("bad", reason="DigestMismatch"),
            Code.FAILED_PRECONDITION,
            Details(reason="DigestMismatch"),
        ),
        (QueueFull("full", retry_after_s=1.5), Code.RESOURCE_EXHAUSTED, Details(retry_after_s=1.5)),
        (Unavailable("away", retry_after_s=3), Code.UNAVAILABLE, Details(retry_after_s=3.0)),
        (DeadlinePassed("late"), Code.DEADLINE_EXCEEDED, Details()),
        (Unauthenticated("who"), Code.UNAUTHENTICATED, Details()),
        (PermissionDenied("no"), Code.PERMISSION_DENIED, Details()),
        (InternalFault("id"), Code.INTERNAL, Details()),
        (KeyError("oops"), Code.INTERNAL, Details()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_error_becomes_its_status_and_the_client_reads_its_details(
    error: Exception, code: grpc.StatusCode, details: Details
) -> None:
    """What the server says, the client understands."""
    assert statuses.code_of(error) == code
    assert read_details(statuses.trailers_of(error, "text")) == details


def test_details_are_the_standard_ones() -> None:
    """Other clients find ``google.rpc.Status`` under the key that gRPC reserves for it."""
    ((key, data),) = statuses.trailers_of(InvalidInput("bad", field="x"), "x: bad")

    status = status_pb2.Status.FromString(data)
    request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(request)
    assert (key, status.code) == ("grpc-status-details-bin", Code.INVALID_ARGUMENT.value[0])
    assert request.field_violations[0].field == "x"
