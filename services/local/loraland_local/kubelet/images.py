"""Which command of this machine an image name stands for. Pure but for reading one file."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Image:
    """What an image would bring: an entrypoint and its environment."""

    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class ImageMap:
    """Images by repository name."""

    images: Mapping[str, Image]

    def find(self, reference: str) -> Image | None:
        """Return the image whose name ends the reference's repository path, the longest first."""
        repository = repository_of(reference)
        for name in sorted(self.images, key=len, reverse=True):
            if repository == name or repository.endswith(f"/{name}"):
                return self.images[name]
        return None

    def missing_message(self, reference: str) -> str:
        known = ", ".join(sorted(self.images)) or "none"
        return (
            f'Failed to pull image "{reference}": no such image on this laptop, where images are '
            f"names for local commands (known: {known})"
        )


def repository_of(reference: str) -> str:
    """Strip tag and digest from an image reference."""
    without_digest = reference.partition("@")[0]
    path, slash, last = without_digest.rpartition("/")
    return path + slash + last.partition(":")[0]


def parse(text: str) -> ImageMap:
    """Read the map: ``{"images": {NAME: {"entrypoint": [...], "env": {...}}}}``."""
    try:
        listed = json.loads(text)["images"]
        return ImageMap(
            {
                name: Image(
                    tuple(str(part) for part in image.get("entrypoint") or ()),
                    {str(k): str(v) for k, v in (image.get("env") or {}).items()},
                )
                for name, image in listed.items()
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"image map: expected {{'images': {{name: {{'entrypoint': [...]}}}}}}: {error!r}"
        ) from error


def load(path: pathlib.Path) -> ImageMap:
    return parse(path.read_text())
