"""The catalogue's file is followed while the operator runs."""

from pathlib import Path

import yaml
from loraland_operator.base_models import BaseModels


def write(path: Path, *names: str) -> None:
    entries = {name: {"source": {"embedded": name}} for name in names}
    path.write_text(yaml.safe_dump({"schemaVersion": 1, "baseModels": entries}))


def test_new_entry_is_found_without_a_restart(tmp_path: Path) -> None:
    """A ConfigMap's files change under a running pod."""
    path = tmp_path / "catalogue.yaml"
    write(path, "one")
    models = BaseModels(path)
    write(path, "one", "number-two")

    assert models.find("number-two") is not None
    assert models.names == ("number-two", "one")


def test_broken_file_leaves_the_last_catalogue(tmp_path: Path) -> None:
    """A typing mistake must not take every base model away."""
    path = tmp_path / "catalogue.yaml"
    write(path, "one")
    models = BaseModels(path)
    path.write_text("baseModels: [")

    assert models.find("one") is not None
