"""Base models come from S3 and from the GGUF file of the embedded one."""

from pathlib import Path

import pytest
import tiny_base
from loraland_core.catalogue import BaseModelEntry
from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.store import Store
from loraland_models import sources, weights


def entry(**source: object) -> BaseModelEntry:
    return BaseModelEntry.model_validate({"source": source})


@pytest.fixture
def uploaded(store: Store, tmp_path: Path) -> str:
    """A base model below a prefix; beside it a folder that is none of its files."""
    folder = tiny_base.write_base_model(tmp_path / "made")
    for file in folder.iterdir():
        store.upload(file, f"bases/tiny/{file.name}")
    store.write("bases/tiny/original/weights.pth", b"pickle")
    return store.uri("bases/tiny")


def test_a_model_in_s3_is_downloaded_once(uploaded: str, store: Store, tmp_path: Path) -> None:
    """It has the revision of the same files in a folder, and a second start downloads nothing."""
    reports: list[str] = []
    options = {"cache_dir": tmp_path / "cache", "store": store.config, "report": reports.append}

    first = sources.resolve("tiny", entry(s3=uploaded), **options)  # type: ignore[arg-type]
    downloads = len(reports)
    second = sources.resolve("tiny", entry(s3=uploaded), **options)  # type: ignore[arg-type]

    made = entry(directory=str(tmp_path / "made"))
    local = sources.resolve("tiny", made, cache_dir=tmp_path / "cache")
    assert first == second
    assert len(reports) == downloads > 0
    assert first.revision == local.revision
    assert weights.load_tokenizer(first).eos_token == tiny_base.END


def test_other_weights_in_s3_are_another_revision(
    uploaded: str, store: Store, tmp_path: Path
) -> None:
    """Same names, same sizes, other content: the cache is not mistaken for it."""
    options = {"cache_dir": tmp_path / "cache", "store": store.config}
    first = sources.resolve("tiny", entry(s3=uploaded), **options)  # type: ignore[arg-type]
    other = tiny_base.write_base_model(tmp_path / "other", seed=1)
    store.upload(other / "model.safetensors", "bases/tiny/model.safetensors")

    second = sources.resolve("tiny", entry(s3=uploaded), **options)  # type: ignore[arg-type]

    assert first.revision != second.revision


def test_pickled_weights_in_s3_are_refused(store: Store, tmp_path: Path) -> None:
    """The file is named, and nothing is downloaded."""
    store.write("bases/old/pytorch_model.bin", b"pickle")

    with pytest.raises(InvalidInput, match=r"only as pytorch_model\.bin"):
        sources.resolve(
            "old", entry(s3=store.uri("bases/old")), cache_dir=tmp_path, store=store.config
        )


def test_a_hub_that_does_not_answer_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network is a sentence, and worth trying again."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(Unavailable, match="the Hugging Face Hub does not answer for a/b@main"):
        sources.resolve("b", entry(hub={"repo": "a/b"}), cache_dir=tmp_path)
