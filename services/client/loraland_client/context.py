"""What goes with every call beside its message: credentials, and the caller's trace. No I/O."""

import sys

# A carrier may hold more (baggage); nobody but tracing has use for that here.
_TRACE_KEYS = ("traceparent", "tracestate")


def build_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """Return a call's metadata. Without a token a certificate tells who calls."""
    credentials = (("authorization", f"Bearer {token}"),) if token else ()
    return (*credentials, *_trace_context())


def _trace_context() -> tuple[tuple[str, str], ...]:
    """Return the W3C context of the caller's span, if the caller uses OpenTelemetry at all."""
    # A program with a span has imported it; one without need not have it installed.
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry import propagate  # noqa: PLC0415 (optional)

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((key, carrier[key]) for key in _TRACE_KEYS if key in carrier)
