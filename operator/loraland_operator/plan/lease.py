"""Who may lead, by what the Lease says. Pure.

After Kubernetes' own controllers: whoever finds a Lease that nobody has renewed for its duration,
measured by the finder's own clock, may take it; the API server's resource version lets one win.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]

DURATION_S = 10.0
RENEW_DEADLINE_S = 6.0
RETRY_S = 2.0


def may_take(lease: Object | None, identity: str, *, unchanged_for_s: float) -> bool:
    """Whether the Lease is free, ours already, or left by a holder that does not renew it."""
    spec = (lease or {}).get("spec") or {}
    holder = spec.get("holderIdentity") or ""
    if holder in ("", identity):
        return True
    return unchanged_for_s >= float(spec.get("leaseDurationSeconds") or DURATION_S)


def next_spec(
    lease: Object | None, identity: str, now: datetime, *, duration_s: float = DURATION_S
) -> dict[str, Any]:
    """Return the spec that makes ``identity`` the holder as of now."""
    spec = (lease or {}).get("spec") or {}
    time = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if spec.get("holderIdentity") == identity:
        return {**spec, "leaseDurationSeconds": int(duration_s), "renewTime": time}
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": int(duration_s),
        "acquireTime": time,
        "renewTime": time,
        "leaseTransitions": int(spec.get("leaseTransitions") or 0) + bool(spec),
    }


def released_spec(lease: Object) -> dict[str, Any]:
    """Return the spec with which a holder that stops lets the next one in at once."""
    return {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
