"""One job from its file to its result. The stations in order; each is a module of its own."""

import gc
import logging
import tempfile
from datetime import UTC, datetime
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

from loraland_trainer import dataset, evaluate, examples, export, gate, loop, model
from loraland_trainer.config import Config
from loraland_trainer.examples import Example
from loraland_trainer.progress import Board
from loraland_trainer.termination import Terminator

log = logging.getLogger(__name__)


def train_adapter(
    job: JobSpec, *, config: Config, store: Store, board: Board, terminator: Terminator
) -> None:
    """Train, score and commit the adapter that the job describes."""
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
    training = weights.training_precision(job.base_model, spec.method)
    serving = weights.serving_precision(job.base_model)
    weights.check_precision(base_model.name, serving)
    tokenizer = weights.load_tokenizer(base_model)
    limit = spec.training.max_sequence_length
    learned = examples.build_examples(rows.train, spec.dataset, tokenizer, max_tokens=limit)
    held_out = examples.build_examples(rows.evaluation, spec.dataset, tokenizer, max_tokens=limit)
    transformers.set_seed(spec.training.seed)
    tuned = model.attach_adapter(weights.load_model(base_model, training), spec.lora)

    with tempfile.TemporaryDirectory(prefix="loraland-") as name:
        work_dir = Path(name)
        board.enter("training")
        outcome = loop.train(
            tuned,
            learned,
            spec.training,
            precision=training,
            pad_token_id=int(tokenizer.pad_token_id),
            work_dir=work_dir / "trainer",
            board=board,
            terminator=terminator,
        )
        directory = work_dir / "adapter"
        prompt = examples.prompt_template(spec.dataset)
        export.write_adapter(tuned, directory, job=job, prompt=prompt)
        if serving != training:
            # An adapter is scored on the weights that will serve it; two copies may not fit.
            del tuned
            release_memory()
            tuned = model.read_adapter(weights.load_model(base_model, serving), directory)
        scores = _score_both(tuned, tokenizer, held_out, job, board)

        board.enter("uploading")
        report = export.Report(
            scores=scores,
            num_evaluated=len(held_out),
            verdict=gate.judge(spec.evaluation.gate, scores),
            outcome=outcome,
            training=training,
            serving=serving,
        )
        export.write_attachments(directory, job=job, base_model=base_model, report=report)
        now = datetime.now(UTC)
        manifest = export.build_manifest(
            directory, job=job, base_model=base_model, training=training, now=now
        )
        export.upload(store, directory, manifest, job=job, report=report, now=now)
    board.enter("done")


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


def _score_both(
    tuned: Any, tokenizer: Any, held_out: list[Example], job: JobSpec, board: Board
) -> list[Score]:
    spec = job.spec.evaluation
    board.enter("scoring-base")
    with tuned.disable_adapter():
        _, base_scores = evaluate.answer_all("base", tuned, tokenizer, held_out, spec)
    board.enter("scoring-tuned")
    answers, tuned_scores = evaluate.answer_all("tuned", tuned, tokenizer, held_out, spec)
    for example, answer in list(zip(held_out, answers, strict=True))[:2]:
        log.info("for example: expected %r, answered %r", example.reference, answer)
    return evaluate.pair_scores(base_scores, tuned_scores)


def release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
