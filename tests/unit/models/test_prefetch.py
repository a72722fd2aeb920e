"""Base weights brought to a disk ahead of time."""

from pathlib import Path

import pytest
import tiny_base
from loraland_core.catalogue import BaseModelEntry
from loraland_core.errors import InvalidInput
from loraland_models import prefetch, sources

COMMIT = "e0bc86c23ce5aae1db576c8cca6f06f1f73af2db"


def write_catalogue(folder: Path, source: str) -> dict[str, str]:
    file = folder / "catalogue.yaml"
    file.write_text(f"schemaVersion: 1\nbaseModels:\n  tiny:\n    source: {source}\n")
    return {"LORALAND_CATALOGUE": str(file)}


def test_prefetch_brings_the_weights_and_tells_their_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it, the base model is found where replicas look for it."""
    monkeypatch.setenv("LORALAND_CACHE_DIR", str(tmp_path / "cache"))
    weights = tiny_base.write_base_model(tmp_path / "base")

    found = prefetch.fetch("tiny", write_catalogue(tmp_path, f"{{directory: {weights}}}"))

    assert weights == found.directory
    assert found.revision.startswith("sha256:")


def test_prefetch_refuses_another_revision_than_the_catalogue_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Hub that answers with another commit is no source of the one that was asked for."""
    environ = write_catalogue(tmp_path, f"{{hub: {{repo: a/b, revision: {COMMIT}}}}}")

    def resolve(name: str, entry: BaseModelEntry, **_: object) -> sources.ResolvedModel:
        return sources.ResolvedModel(name, entry, tmp_path, "0" * 40)

    monkeypatch.setattr(sources, "resolve", resolve)

    with pytest.raises(InvalidInput, match="where the catalogue names"):
        prefetch.fetch("tiny", environ)


def test_prefetch_names_the_known_base_models(tmp_path: Path) -> None:
    """A name that the catalogue does not have is answered with those it has."""
    environ = write_catalogue(tmp_path, "{directory: /models/tiny}")

    with pytest.raises(InvalidInput, match="it knows: tiny"):
        prefetch.fetch("large", environ)
