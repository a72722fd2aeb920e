"""The trained adapter as files, and into the artifact store: manifest last, then the result.

Between the two the artifact is fetched back and tried: a job is not done with files that nobody can
serve.

What serving needs is written as PEFT writes it, so that any PEFT program reads it; two things are
made the same on every machine, so that the same weights have the same digest: the order of the
target modules, and the base model's name instead of a path.
"""

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loraland_core import artifacts
from loraland_core.artifacts import File, Manifest, Result, Score
from loraland_core.errors import ArtifactInvalid, LoraLandError, NotFound
from loraland_core.jobspec import JobSpec
from loraland_core.prompts import PROMPT_FILE, PromptTemplate
from loraland_core.store import Store
from loraland_models import revisions
from loraland_models.sources import ResolvedModel
from loraland_models.weights import Precision

from loraland_trainer import card, journal
from loraland_trainer.gate import Verdict
from loraland_trainer.lengths import DataReport
from loraland_trainer.loop import Outcome

log = logging.getLogger(__name__)
METRICS_FILE = "metrics.json"
CARD_FILE = "README.md"


class UploadDamaged(LoraLandError):
    """What the artifact store gives back is not what it was given; another attempt may help."""


@dataclass(frozen=True)
class Report:
    """What was measured."""

    scores: list[Score]
    num_evaluated: int
    verdict: Verdict
    outcome: Outcome
    training: Precision
    serving: Precision
    data: DataReport


def write_adapter(model: Any, directory: Path, *, job: JobSpec, prompt: PromptTemplate) -> None:
    """Write what serving needs into ``directory``."""
    # Asked to decide by itself, PEFT would look for the base model on the Hub.
    model.save_pretrained(directory, safe_serialization=True, save_embedding_layers=False)
    config_file = directory / artifacts.CONFIG_FILE
    config = json.loads(config_file.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    hub = job.base_model.source.hub
    config["base_model_name_or_path"] = hub.repo if hub else job.spec.base_model
    config["revision"] = hub.revision if hub else None
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (directory / PROMPT_FILE).write_bytes(prompt.to_json())


def write_attachments(
    directory: Path, *, job: JobSpec, base_model: ResolvedModel, report: Report
) -> None:
    """Write what was measured beside the adapter; PEFT's empty card is replaced."""
    outcome = report.outcome
    document = {
        "schemaVersion": artifacts.SCHEMA_VERSION,
        "metrics": [s.model_dump(by_alias=True) for s in report.scores],
        "numEvaluated": report.num_evaluated,
        "data": report.data.to_document(),
        "servingPrecision": report.serving.label,
        "trainingPrecision": report.training.label,
        "losses": [round(loss, 6) for loss in outcome.losses],
        "totalSteps": outcome.total_steps,
        "numTokens": outcome.num_tokens,
        "trainSeconds": round(outcome.train_seconds, 1),
    }
    (directory / METRICS_FILE).write_text(json.dumps(document, indent=2) + "\n")
    journal.write(outcome.history, directory)
    (directory / CARD_FILE).write_text(card.build_card(job, base_model, report))


def build_manifest(
    directory: Path, *, job: JobSpec, base_model: ResolvedModel, training: Precision, now: datetime
) -> Manifest:
    """Return the manifest of every file in ``directory``."""
    config = json.loads((directory / artifacts.CONFIG_FILE).read_text())
    files = [
        File(path=path.name, size_bytes=path.stat().st_size, sha256=revisions.hash_file(path))
        for path in sorted(directory.iterdir())
    ]
    return Manifest(
        base_model=job.spec.base_model,
        resolved_revision=base_model.revision,
        training_precision=training.label,
        rank=job.spec.lora.rank,
        alpha=job.spec.lora.alpha,
        target_modules=config["target_modules"],
        dtype="float32",
        files=files,
        created_at=artifacts.now_text(now),
        job_uid=job.uid,
    )


def upload(store: Store, directory: Path, manifest: Manifest, *, job: JobSpec) -> str:
    """Upload the files, then the manifest, which commits them; return their prefix."""
    prefix = artifacts.adapter_prefix(job.namespace, job.adapter_name, manifest.digest)
    for file in manifest.files:
        store.upload(directory / file.path, prefix + file.path)
    store.write(prefix + artifacts.MANIFEST_FILE, manifest.to_json())
    return prefix


def fetch(store: Store, prefix: str, directory: Path, *, digest: str) -> None:
    """Download what serving needs as a replica does; raise ``UploadDamaged`` if it differs."""
    try:
        manifest = artifacts.parse_manifest(
            store.read(prefix + artifacts.MANIFEST_FILE), expected_digest=digest
        )
        for file in manifest.served_files:
            path = directory / file.path
            sha256 = store.download(prefix + file.path, path, max_bytes=file.size_bytes)
            if sha256 != file.sha256:
                raise UploadDamaged(f"{store.uri(prefix + file.path)} is not what was uploaded")
    except (NotFound, ArtifactInvalid) as error:
        raise UploadDamaged(f"{store.uri(prefix)} is not what was uploaded: {error}") from error


def write_result(
    store: Store, manifest: Manifest, *, job: JobSpec, report: Report, now: datetime
) -> Result:
    """Write the job's result, the end of all; return it."""
    prefix = artifacts.adapter_prefix(job.namespace, job.adapter_name, manifest.digest)
    outcome = report.outcome
    result = Result(
        job_uid=job.uid,
        uri=store.uri(prefix),
        digest=manifest.digest,
        size_bytes=manifest.size_bytes,
        metrics=report.scores,
        num_evaluated=report.num_evaluated,
        data=report.data.sentence(),
        gate_passed=report.verdict.passed,
        gate_message=report.verdict.message,
        created_at=artifacts.now_text(now),
        train_seconds=round(outcome.train_seconds, 1),
        final_loss=outcome.final_loss,
        total_steps=outcome.total_steps,
    )
    store.write(artifacts.result_key(job.uid), result.to_json())
    log.info("artifact %s committed at %s", manifest.digest[:12], result.uri)
    return result
