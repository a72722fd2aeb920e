"""What a job's recipe says reaches the training: an adapter of the asked shape, an early end."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_base
import trainer_jobs
from loraland_core import artifacts, jobspec
from loraland_core.jobspec import JobSpec
from loraland_core.store import Store, StoreConfig
from loraland_trainer import main
from loraland_trainer.termination import Terminator

COMMON = {"batchSize": 2, "gradientAccumulation": 1}
# The first look is always the best so far, and nothing falls by a hundred after it.
STOPPED = {"everySteps": 1, "patience": 1, "minImprovement": "100"}


def run(job: JobSpec, folder: Path) -> tuple[int, Any]:
    folder.mkdir(exist_ok=True)
    config = trainer_jobs.build_config(folder)
    config.job_file.write_text(job.to_json())
    exit_code = main.attempt(config, terminator=Terminator())
    text = config.termination_log.read_text() if config.termination_log.exists() else ""
    return exit_code, jobspec.parse_termination_message(text)


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["Packed", "LengthGrouped"])
def test_a_recipe_is_followed(
    *, store: Store, store_config: StoreConfig, tmp_path: Path, batching: str
) -> None:
    """rsLoRA, LoRA+, checkpointed gradients, either kind of batches, and an end after two looks."""
    training = COMMON | {
        "maxSteps": 50,
        "batching": batching,
        "gradientCheckpointing": "Always",
        "earlyStopping": STOPPED,
    }
    lora = {"rank": 4, "targetModules": ["q_proj"], "rsLora": True, "learningRateRatio": "16"}
    base = tiny_base.write_base_model(tmp_path / "base")
    job = trainer_jobs.build_job(store_config, base_folder=base, lora=lora, training=training)

    exit_code, _ = run(job, tmp_path / "pod")

    result = artifacts.parse_result(store.read(artifacts.result_key("uid-1")))
    config = json.loads(store.read(store.key(result.uri) + artifacts.CONFIG_FILE))
    assert (exit_code, result.total_steps) == (0, 2)
    assert config["use_rslora"]
    assert config["target_modules"] == ["q_proj"]


def test_an_optimizer_that_cannot_be_had_ends_the_job(
    store_config: StoreConfig, store: Store, tmp_path: Path
) -> None:
    """Exit code 42 and the field, where there is no GPU for paged states."""
    training = COMMON | {"maxSteps": 2, "optimizer": "PagedAdamW8bit"}
    base = tiny_base.write_base_model(tmp_path / "base")
    job = trainer_jobs.build_job(store_config, base_folder=base, training=training)

    exit_code, message = run(job, tmp_path / "pod")

    assert exit_code == jobspec.ExitCode.INVALID_JOB
    assert "spec.training.optimizer: paged 8-bit states need a GPU" in message.message
