"""A catalogue entry becomes a folder and a revision, or an error that says what is wrong."""

from pathlib import Path

import pytest
import tiny_base
from loraland_core.catalogue import BaseModelEntry, Source
from loraland_core.errors import InvalidInput
from loraland_models import sources


def entry(**source: str) -> BaseModelEntry:
    return BaseModelEntry(source=Source.model_validate(source))


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base.write_base_model(tmp_path_factory.mktemp("base"))


def test_directory_is_used_where_it_lies(base_folder: Path, tmp_path: Path) -> None:
    """Nothing is copied, and the revision is a hash of the content."""
    found = sources.resolve("tiny", entry(directory=str(base_folder)), cache_dir=tmp_path)

    assert base_folder == found.directory
    assert found.revision.startswith("sha256:")


def test_revision_follows_the_content(base_folder: Path, tmp_path: Path) -> None:
    """Other weights are another revision; the same weights elsewhere are the same one."""
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        tiny_base.write_base_model(folder, seed=seed)

    first, same, other = (
        sources.resolve("tiny", entry(directory=str(f)), cache_dir=tmp_path).revision
        for f in folders
    )

    assert first == same
    assert first != other


@pytest.mark.parametrize(
    ("source", "files", "part"),
    [
        pytest.param({"directory": "{folder}/absent"}, [], "neither a folder nor", id="absent"),
        pytest.param(
            {"directory": "{folder}"}, ["config.json"], "no *.safetensors", id="no-weights"
        ),
        pytest.param(
            {"directory": "{folder}"},
            ["config.json", "pytorch_model.bin"],
            "only as pytorch_model.bin, which may hold pickled code",
            id="pickle",
        ),
        pytest.param({"embedded": "gpt-5"}, [], "known: smollm2-135m-instruct", id="embedded"),
    ],
)
def test_wrong_sources_are_refused(
    source: dict[str, str], files: list[str], part: str, tmp_path: Path
) -> None:
    """The error names the field of the catalogue and what was found."""
    for name in files:
        (tmp_path / name).write_text("{}")
    given = {key: value.format(folder=tmp_path) for key, value in source.items()}

    with pytest.raises(InvalidInput) as caught:
        sources.resolve("tiny", entry(**given), cache_dir=tmp_path / "cache")

    assert str(caught.value).startswith("source.")
    assert part in str(caught.value)
