"""The jobs for public data sets run on real rows of these sets, where a copy of them is at hand."""

import os
from pathlib import Path
from typing import Any

import pytest
import tiny_base
import trainer_jobs
import yaml
from loraland_core import artifacts
from loraland_core.resources import FineTuneJob
from loraland_core.store import Store, StoreConfig
from loraland_trainer import dataset, examples, main
from loraland_trainer.termination import Terminator

REPOSITORY = Path(__file__).parents[2]
ROWS_USED = 40
SETS = [
    pytest.param("viggo", "viggo", id="viggo"),
    pytest.param("wikisql", "wikisql", id="wikisql"),
    pytest.param("sst2", "glue_sst2", id="sst2"),
]


@pytest.fixture(scope="module")
def copies() -> Path:
    """Where copies of the data sets lie."""
    folder = Path(os.environ.get("LORALAND_DATASETS") or REPOSITORY.parent / "shared" / "datasets")
    if not folder.is_dir():
        pytest.skip(f"no copies of public data sets in {folder}; set LORALAND_DATASETS")
    return folder


def spec_on_volume(example: str) -> dict[str, Any]:
    """Return the example's spec with its rows on a volume instead of the Hub, and two steps."""
    path = REPOSITORY / "examples" / example / "job.yaml"
    spec = FineTuneJob.model_validate(yaml.safe_load(path.read_text())).spec
    changed: dict[str, Any] = spec.model_dump(by_alias=True, exclude_none=True)
    del changed["dataset"]["huggingFace"]
    changed["dataset"]["pvc"] = {
        "claim": "rows",
        "path": "train.jsonl",
        "evaluationPath": "test.jsonl",
    }
    changed["training"] |= {"maxSteps": 2, "maxSequenceLength": 200}
    changed["evaluation"] |= {"maxSamples": 4, "maxNewTokens": 8}
    return changed


def mount_heads(source: Path, mount: Path) -> None:
    """Put the first rows of a copy where a pod finds its volume."""
    mount.mkdir()
    for file in ("train.jsonl", "test.jsonl"):
        lines = (source / file).read_text().splitlines(keepends=True)
        (mount / file).write_text("".join(lines[:ROWS_USED]))


@pytest.mark.parametrize(("example", "folder"), SETS)
def test_every_real_row_fits_the_templates(copies: Path, example: str, folder: str) -> None:
    """No row of the whole copy lacks what prompt and completion name."""
    spec = FineTuneJob.model_validate(
        yaml.safe_load((REPOSITORY / "examples" / example / "job.yaml").read_text())
    ).spec
    tokenizer: Any = tiny_base.build_tokenizer()

    for file in ("train.jsonl", "test.jsonl"):
        rows = dataset.parse_jsonl((copies / folder / file).read_text(), where=file)
        examples.check_rows(rows, spec.dataset, where=file)
        built = examples.build_examples(rows[:ROWS_USED], spec.dataset, tokenizer, max_tokens=4096)

        assert all(example_.reference.strip() for example_ in built)


@pytest.mark.slow
@pytest.mark.parametrize(("example", "folder"), SETS)
def test_the_job_runs_on_real_rows(
    *,
    copies: Path,
    store: Store,
    store_config: StoreConfig,
    tmp_path: Path,
    example: str,
    folder: str,
) -> None:
    """From rows to a committed artifact, with the example's own templates and metric."""
    mount_heads(copies / folder, tmp_path / "dataset")
    base_folder = tiny_base.write_base_model(tmp_path / "base")
    spec = spec_on_volume(example)
    job = trainer_jobs.build_job(store_config, base_folder=base_folder, **spec)
    config = trainer_jobs.build_config(tmp_path)
    config.job_file.write_text(job.to_json())

    exit_code = main.attempt(config, terminator=Terminator())

    result = artifacts.parse_result(store.read(artifacts.result_key(job.uid)))
    assert exit_code == 0
    assert [score.name for score in result.metrics] == spec["evaluation"]["metrics"]
    assert result.num_evaluated == 4
