"""One job from its file to its result. The stations in order; each is a module of its own."""

import gc
import logging
import tempfile
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
)
from loraland_trainer.checkpoints import Checkpoints
from loraland_trainer.config import Config
from loraland_trainer.examples import Example
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
    learned: list[Example]
    held_out: list[Example]


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
        if material.serving != material.training:
            # An adapter is scored on the weights that will serve it; two copies may not fit.
            del trained
            release_memory()
            trained = model.load_served(material.base_model, material.serving, directory)
        scores = _score_both(trained, material, job, board)
        board.enter("uploading")
        _commit(job, material, store, directory, scores=scores, outcome=outcome)
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
    board.enter("loading-data")
    rows = dataset.load_rows(
        spec.dataset,
        config=config,
        store=job.store,
        seed=spec.training.seed,
        max_evaluation=spec.evaluation.max_samples,
    )
    examples.check_rows(rows.train, spec.dataset, where="training rows")
    examples.check_rows(rows.evaluation, spec.dataset, where="evaluation rows")
    board.enter("loading-model")
    base_model = _resolve(job, config)
    serving = weights.serving_precision(job.base_model)
    weights.check_precision(base_model.name, serving)
    tokenizer = weights.load_tokenizer(base_model)
    limit = spec.training.max_sequence_length
    held_out = examples.build_examples(rows.evaluation, spec.dataset, tokenizer, max_tokens=limit)
    # Perfect answers: a metric that cannot read the references is found before the training.
    evaluate.score_answers(spec.evaluation, [e.reference for e in held_out], held_out)
    return Material(
        base_model=base_model,
        training=weights.training_precision(job.base_model, spec.method),
        serving=serving,
        tokenizer=tokenizer,
        learned=examples.build_examples(rows.train, spec.dataset, tokenizer, max_tokens=limit),
        held_out=held_out,
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
    transformers.set_seed(spec.training.seed)
    base = weights.load_model(material.base_model, material.training)
    tuned = model.attach_adapter(base, spec.lora)
    board.enter("training")
    outcome = loop.train(
        tuned,
        material.learned,
        spec.training,
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


def _score_both(tuned: Any, material: Material, job: JobSpec, board: Board) -> list[Score]:
    spec, held_out = job.spec.evaluation, material.held_out
    board.enter("scoring-base")
    with tuned.disable_adapter():
        _, base_scores = evaluate.answer_all("base", tuned, material.tokenizer, held_out, spec)
    board.enter("scoring-tuned")
    answers, tuned_scores = evaluate.answer_all("tuned", tuned, material.tokenizer, held_out, spec)
    for example, answer in list(zip(held_out, answers, strict=True))[:EXAMPLES_SHOWN]:
        log.info("for example: expected %r, answered %r", example.reference, answer)
    return evaluate.pair_scores(base_scores, tuned_scores)


def _commit(
    job: JobSpec,
    material: Material,
    store: Store,
    directory: Path,
    *,
    scores: list[Score],
    outcome: loop.Outcome,
) -> None:
    report = export.Report(
        scores=scores,
        num_evaluated=len(material.held_out),
        verdict=gate.judge(job.spec.evaluation.gate, scores),
        outcome=outcome,
        training=material.training,
        serving=material.serving,
    )
    commit = partial(
        export.commit,
        store,
        directory,
        job=job,
        base_model=material.base_model,
        report=report,
        now=datetime.now(UTC),
    )
    patience.insist("the upload of the adapter", commit)


def release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
