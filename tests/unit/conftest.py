"""What must be set before any test's imports."""

import os

from hypothesis import HealthCheck, settings

# Triton reads it once, when something first imports it; several libraries do.
os.environ["TRITON_INTERPRET"] = "1"

# A busy machine is no failure, and what passed once passes again.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")
