"""What the pod is to do: a file that the operator mounts from a ConfigMap."""

from pathlib import Path

from loraland_core.errors import InvalidInput


def read(path: Path) -> bytes:
    """Return the file's content; one that is absent or unreadable is nobody's to retry."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"cannot be read: {error.strerror}; the operator mounts it from a ConfigMap of the"
            " same namespace",
            field=str(path),
            reason="InvalidJob",
        ) from error
