"""Whose fault it is that an artifact is not to be had: the adapter's, the platform's, the disk's. Pure."""

import errno
from pathlib import Path

from loraland_core.errors import ArtifactInvalid, InvalidInput, Unavailable
from loraland_core.names import Reason


def translate(error: Exception, root: Path) -> Exception:
    """Return the error as ours; one that is ours already, or nobody's, stays what it is."""
    if isinstance(error, OSError):
        return _disk_fault(error, root)
    return _as_artifact_fault(error) if isinstance(error, InvalidInput) else error


def _as_artifact_fault(error: InvalidInput) -> ArtifactInvalid | Unavailable:
    """Tell an adapter's fault from the platform's: a wrong bucket is not the adapter's."""
    if isinstance(error, ArtifactInvalid):
        return error
    if error.reason.startswith(("Store", "Bucket")):
        return Unavailable(f"the artifact store refuses this server: {error}", retry_after_s=30.0)
    reason = error.reason if error.reason != "InvalidSpec" else Reason.ARTIFACT_INVALID.value
    return ArtifactInvalid(str(error), reason=reason)


def _disk_fault(error: OSError, root: Path) -> Unavailable:
    if error.errno == errno.ENOSPC:
        return Unavailable(f"no space is left in {root}; free some", retry_after_s=30.0)
    return Unavailable(f"the adapter folder {root} fails: {error.strerror}", retry_after_s=30.0)
