"""What must be set before any test's imports."""

import os

# Triton reads it once, when something first imports it; several libraries do.
os.environ["TRITON_INTERPRET"] = "1"
