"""Data sets of the Hub, read by the ``datasets`` library; here from a folder in its layout."""

import json
from pathlib import Path

import datasets
import pytest
from loraland_core.errors import InvalidInput
from loraland_core.resources.dataset import HuggingFaceDataset
from loraland_trainer import hub
from loraland_trainer.dataset import SourceUnavailable

ROWS = [{"sentence": "fine", "label": 1}, {"sentence": "dull", "label": 0}]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HuggingFaceDataset:
    """A data set with two splits; the library looks for a folder before it asks the Hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "films" / "reviews"
    folder.mkdir(parents=True)
    for split, rows in (("train", ROWS), ("test", ROWS[:1])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text)
    return HuggingFaceDataset(repo="films/reviews")


def test_a_split_becomes_rows(repository: HuggingFaceDataset) -> None:
    """Plain dictionaries, in order."""
    assert hub.read_split(repository, "train", token=None) == ROWS
    assert ROWS[:1] == hub.read_split(repository, "test", token=None)


def test_an_unknown_split_is_refused(repository: HuggingFaceDataset) -> None:
    """The library's sentence names the splits that are there."""
    with pytest.raises(InvalidInput, match="Unknown split") as caught:
        hub.read_split(repository, "validation", token=None)

    assert caught.value.reason == "DatasetNotFound"


def test_a_script_is_never_run(repository: HuggingFaceDataset, tmp_path: Path) -> None:
    """A data set that is a program is refused, and the program leaves no trace."""
    folder = tmp_path / "films" / "script"
    folder.mkdir()
    (folder / "script.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")

    with pytest.raises(InvalidInput):
        hub.read_split(HuggingFaceDataset(repo="films/script"), "train", token=None)

    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "repo", ["/etc", "../secrets", "a/b/c", "https://host/x"], ids=["root", "up", "deep", "url"]
)
def test_only_the_hubs_names_are_looked_for(repo: str) -> None:
    """The library would take a path as well; a job must not read the pod's files."""
    with pytest.raises(InvalidInput, match="is no data set id"):
        hub.read_split(HuggingFaceDataset(repo=repo), "train", token=None)


def test_a_hub_that_does_not_answer_is_worth_another_try(
    repository: HuggingFaceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network ends the pod, not the job."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("Connection refused")

    monkeypatch.setattr(datasets, "load_dataset", refuse)

    with pytest.raises(SourceUnavailable, match="does not answer for films/reviews@main"):
        hub.read_split(repository, "train", token=None)
