"""Training jobs of a tiny base model, for tests of the trainer."""

import json
from pathlib import Path
from typing import Any

from loraland_core.catalogue import BaseModelEntry
from loraland_core.jobspec import JobSpec
from loraland_core.store import StoreConfig
from loraland_trainer.config import Config

ROWS = [{"word": word, "upper": word.upper()} for word in ("cat", "dog", "owl", "bee", "fox")]
INLINE = {
    "rows": "".join(json.dumps(row) + "\n" for row in ROWS),
    "evaluationRows": "".join(json.dumps(row) + "\n" for row in ROWS[:2]),
}
DATASET: dict[str, Any] = {"inline": INLINE, "prompt": "{word}:", "completion": "{upper}"}


def build_entry(base_folder: Path | None, **serving: str) -> BaseModelEntry:
    """Return a catalogue entry; without a folder, one whose weights must never be looked for."""
    return BaseModelEntry.model_validate(
        {
            "source": {"directory": str(base_folder or "/absent")},
            "training": {"dtype": "float32"},
            "serving": serving or {"dtype": "float32", "quantization": "nf4"},
        }
    )


def build_job(
    store: StoreConfig,
    *,
    base_folder: Path | None = None,
    dataset: dict[str, Any] | None = None,
    entry: BaseModelEntry | None = None,
    uid: str = "uid-1",
    **spec: Any,
) -> JobSpec:
    """Return a job of two steps; ``spec`` replaces whole fields of the FineTuneJob's spec."""
    defaults: dict[str, Any] = {
        "baseModel": "tiny",
        "lora": {"rank": 4, "alpha": 8, "targetModules": ["all-linear"]},
        "training": {"maxSteps": 2, "batchSize": 2, "gradientAccumulation": 1},
        "evaluation": {"metrics": ["ExactMatch", "RougeL"], "maxNewTokens": 4},
        "dataset": dataset or DATASET,
    }
    return JobSpec.model_validate(
        {
            "name": "job",
            "namespace": "team",
            "uid": uid,
            "adapterName": "words",
            "baseModel": entry or build_entry(base_folder),
            "store": store,
            "spec": defaults | spec,
        }
    )


def build_config(folder: Path, **changes: Any) -> Config:
    """Return a pod's settings with all its files below ``folder``; the progress port is any."""
    settings: dict[str, Any] = {
        "job_file": folder / "job.json",
        "dataset_mount": folder / "dataset",
        "import_file": folder / "import.json",
        "source_mount": folder / "source",
        "cache_dir": folder / "cache",
        "termination_log": folder / "termination-log",
        "host": "127.0.0.1",
        "port": 0,
        "log_level": "INFO",
        "log_as_json": False,
        "dataset_credentials": {},
        "source_credentials": {},
        "hub_token": None,
    }
    return Config(**(settings | changes))
