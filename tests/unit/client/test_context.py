"""What a call carries beside its message."""

import pytest
from loraland_client import context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider


@pytest.mark.parametrize(
    ("token", "expected"),
    [("secret", (("authorization", "Bearer secret"),)), ("", ())],
    ids=["token", "certificate"],
)
def test_metadata_holds_the_token_there_is(
    token: str, expected: tuple[tuple[str, str], ...]
) -> None:
    """No token, no metadata: a certificate speaks for the caller."""
    assert context.build_metadata(token) == expected


def test_metadata_carries_the_trace_of_the_callers_span() -> None:
    """The replica's spans become children of the caller's."""
    span = TracerProvider().get_tracer("test").start_span("call")
    with trace.use_span(span, end_on_exit=True):
        metadata = dict(context.build_metadata(""))

    found = span.get_span_context()
    prefix = f"00-{found.trace_id:032x}-{found.span_id:016x}-"
    assert metadata["traceparent"].startswith(prefix)
