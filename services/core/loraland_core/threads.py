"""How long the threads of a matrix library wait awake for each other. No torch; no threads here.

OpenMP reads this from the environment when it is loaded, so it is set before anything imports torch.
"""

from collections.abc import MutableMapping

# About half a millisecond: longer than what lies between two products of a step, so that threads meet
# awake; short enough that others get the core soon. docs/performance.md has what other counts cost.
SPINS = 10_000


def set_spinning(environment: MutableMapping[str, str]) -> None:
    """Bound how long a thread spins before it sleeps, unless somebody has chosen how threads wait."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))
