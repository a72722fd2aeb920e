"""One job from its file to its result. The stations in order; each is a module of its own."""

import gc
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from loraland_core.artifacts import Score
from loraland_core.errors import Unavailable
from loraland_core.jobspec import JobSpec
from loraland_core.store import Store
from loraland_models import sources, weights
from loraland_models.sources import ResolvedModel
from loraland_models.weights import Precision

from loraland_trainer import (
    dataset,
    evaluate,
    examples,
    export,
    gate,
    group,
    loop,
    model,
    patience,
    trackers,
)
from loraland_trainer.checkpoints import Checkpoints
from loraland_trainer.config import Config
from loraland_trainer.evaluate import Examination
from loraland_trainer.examples import Example
from loraland_trainer.lengths import DataReport
from loraland_trainer.progress import Board
from loraland_trainer.termination import Terminator

log = logging.getLogger(__name__)
EXAMPLES_SHOWN = 2


@dataclass(frozen=True)
class Material:
    """What a run starts from, everything checked that can be checked without training."""

    base_model: ResolvedModel
    training: Precision
    serving: Precision
    tokenizer: Any
    learned: Sequence[Example]
    held_out: Sequence[Example]
    data: DataReport


def train_adapter(
    job: JobSpec, *, config: Config, store: Store, board: Board, terminator: Terminator
) -> None:
    """Train, score and commit the adapter that the job describes."""
    material = prepare(job, config, board)
    if group.rank() > 0:
        _train_along(job, material, store, board=board, terminator=terminator)
        return
    with tempfile.TemporaryDirectory(prefix="loraland-") as name:
        work_dir = Path(name)
        directory = work_dir / "adapter"
        checkpoints = Checkpoints(
            store,
            job.uid,
            keep_last=job.spec.checkpoint.keep_last,
            work_dir=work_dir / "checkpoints",
        )
        trained, outcome = _train(
            job, material, checkpoints, work_dir=work_dir, board=board, terminator=terminator
        )
        prompt = examples.prompt_template(job.spec.dataset)
        export.write_adapter(trained, directory, job=job, prompt=prompt)
        # An adapter is scored on the weights that will serve it; two copies may not fit.
        del trained
        release_memory()
        examination = _examine(job, material)
        scores = _score_both(examination, directory, material, board)
        board.enter("uploading")
        report = _report(job, material, scores=scores, outcome=outcome)
        _commit(job, material, store, directory, report=report, examination=examination)
        checkpoints.delete_all()
    board.enter("done")


def _train_along(
    job: JobSpec, material: Material, store: Store, *, board: Board, terminator: Terminator
) -> None:
    """Do this process's share; the first one saves, scores and commits."""
    with tempfile.TemporaryDirectory(prefix="loraland-") as name:
        work_dir = Path(name)
        checkpoints = Checkpoints(
            store,
            job.uid,
            keep_last=job.spec.checkpoint.keep_last,
            work_dir=work_dir / "checkpoints",
        )
        _train(job, material, checkpoints, work_dir=work_dir, board=board, terminator=terminator)


def prepare(job: JobSpec, config: Config, board: Board) -> Material:
    """Read rows, bring the base model here, and turn rows into examples."""
    spec = job.spec
    trackers.integrations(spec.training.report_to)
    board.enter("loading-data")
    rows = dataset.load_rows(
        spec.dataset,
        config=config,
        store=job.store,
        seed=spec.training.seed,
        max_evaluation=spec.evaluation.max_samples,
        program=spec.evaluation.program,
    )
    board.enter("loading-model")
    base_model = _resolve(job, config)
    serving = weights.serving_precision(job.base_model)
    weights.check_precision(base_model.name, serving)
    tokenizer = weights.load_tokenizer(base_model)
    build = partial(
        examples.build_examples,
        spec=spec.dataset,
        tokenizer=tokenizer,
        max_tokens=spec.training.max_sequence_length,
    )
    held_out = build(rows.evaluation, what="held out", program=spec.evaluation.program)
    # Perfect answers: a metric that cannot read the references is found before the training.
    evaluate.check_references(spec.evaluation, held_out)
    learned = build(rows.train, what="to learn from", long_rows=spec.dataset.long_rows)
    data = DataReport(rows.origin, rows.num_left_out, learned.report, held_out.report)
    board.count_rows(data)
    return Material(
        base_model=base_model,
        training=weights.training_precision(job.base_model, spec.method),
        serving=serving,
        tokenizer=tokenizer,
        learned=learned,
        held_out=held_out,
        data=data,
    )


def _train(
    job: JobSpec,
    material: Material,
    checkpoints: Checkpoints,
    *,
    work_dir: Path,
    board: Board,
    terminator: Terminator,
) -> tuple[Any, loop.Outcome]:
    spec = job.spec
    # Before anything is on a GPU: each process has its own.
    group.join()
    transformers.set_seed(spec.training.seed)
    base = weights.load_model(material.base_model, material.training)
    tuned = model.attach_adapter(base, spec.lora)
    board.enter("training")
    outcome = loop.train(
        tuned,
        material.learned,
        spec.training,
        lora=spec.lora,
        held_out=material.held_out,
        precision=material.training,
        pad_token_id=int(material.tokenizer.pad_token_id),
        work_dir=work_dir / "trainer",
        board=board,
        checkpoints=checkpoints,
        checkpoint_every_steps=spec.checkpoint.every_steps,
        terminator=terminator,
    )
    return tuned, outcome


def _resolve(job: JobSpec, config: Config) -> ResolvedModel:
    try:
        return sources.resolve(
            job.spec.base_model,
            job.base_model,
            cache_dir=config.cache_dir,
            store=job.store,
            report=log.info,
        )
    except Unavailable as error:
        # Not the artifact store: the pod's end must not say so.
        raise dataset.SourceUnavailable(str(error)) from error


def _examine(job: JobSpec, material: Material) -> Examination:
    spec = job.spec
    engine = evaluate.build_engine(
        material.base_model,
        job.base_model,
        material.tokenizer,
        context_tokens=spec.training.max_sequence_length + spec.evaluation.max_new_tokens,
        rank=spec.lora.rank,
    )
    return Examination(engine, material.held_out, spec.evaluation)


def _score_both(
    examination: Examination, directory: Path, material: Material, board: Board
) -> list[Score]:
    board.enter("scoring-base")
    _, base_scores = examination.take("base", None)
    board.enter("scoring-tuned")
    answers, tuned_scores = examination.take("tuned", directory)
    shown = zip(material.held_out[:EXAMPLES_SHOWN], answers[:EXAMPLES_SHOWN], strict=True)
    for example, answer in shown:
        log.info("for example: expected %r, answered %r", example.reference, answer)
    return evaluate.pair_scores(base_scores, tuned_scores)


def _report(
    job: JobSpec, material: Material, *, scores: list[Score], outcome: loop.Outcome
) -> export.Report:
    return export.Report(
        scores=scores,
        num_evaluated=len(material.held_out),
        verdict=gate.judge(job.spec.evaluation.gate, scores),
        outcome=outcome,
        training=material.training,
        serving=material.serving,
        data=material.data,
    )


def _commit(
    job: JobSpec,
    material: Material,
    store: Store,
    directory: Path,
    *,
    report: export.Report,
    examination: Examination,
) -> None:
    """Upload the artifact, try what is there, and only then say that the job is done."""
    now = datetime.now(UTC)
    export.write_attachments(directory, job=job, base_model=material.base_model, report=report)
    manifest = export.build_manifest(
        directory, job=job, base_model=material.base_model, training=report.training, now=now
    )
    upload = partial(export.upload, store, directory, manifest, job=job)
    prefix = patience.insist("the upload of the adapter", upload)
    with tempfile.TemporaryDirectory(prefix="loraland-") as name:
        fetch = partial(export.fetch, store, prefix, Path(name), digest=manifest.digest)
        patience.insist("the download of the adapter", fetch)
        examination.try_adapter(Path(name))
    log.info("the uploaded artifact was fetched, loaded and asked: it answers")
    finish = partial(export.write_result, store, manifest, job=job, report=report, now=now)
    patience.insist("the result", finish)


def release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
