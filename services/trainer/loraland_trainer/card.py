"""The model card: what an adapter is, for whoever finds its files. Pure text."""

from typing import TYPE_CHECKING

from loraland_core.jobspec import JobSpec
from loraland_models.sources import ResolvedModel

if TYPE_CHECKING:
    from loraland_trainer.export import Report

_CARD = """---
library_name: peft
base_model: {base_model}
tags: [lora, loraland]
---
# {namespace}/{adapter}

A LoRA adapter for `{base_model}` (revision `{revision}`), made by the FineTuneJob
`{namespace}/{job}`.

| | base | tuned |
|---|---|---|
{scores}

Scored on {num_evaluated} held-out rows with greedy decoding, at the precision at which replicas serve it
({serving}). Gate: {gate}.

| | |
|---|---|
| data | {data} |
| learned from | {learned} |
| held out | {held_out} |
| method | {method}, base weights in {training} |
| rank, alpha | {rank}, {alpha} |
| target modules | {modules} |
| steps, rows a step | {steps}, {rows} |
| learning rate, schedule | {learning_rate}, {schedule} |
| seed | {seed} |
| final loss | {loss} |
| time | {seconds:.0f} s |

The prompt that it was trained with is in `prompt.json`.
"""


def build_card(job: JobSpec, base_model: ResolvedModel, report: "Report") -> str:
    """Return the card's Markdown."""
    training, lora, outcome = job.spec.training, job.spec.lora, report.outcome
    return _CARD.format(
        base_model=job.spec.base_model,
        revision=base_model.revision,
        namespace=job.namespace,
        adapter=job.adapter_name,
        job=job.name,
        scores="\n".join(f"| {s.name} | {s.base:.4f} | {s.tuned:.4f} |" for s in report.scores),
        num_evaluated=report.num_evaluated,
        serving=report.serving.label,
        gate="passed" if report.verdict.passed else report.verdict.message,
        data=_cell(report.data.origin)
        + (f", {report.data.num_left_out} rows left out" if report.data.num_left_out else ""),
        learned=report.data.learned.sentence(),
        held_out=report.data.held_out.sentence(),
        method=job.spec.method,
        training=report.training.label,
        rank=lora.rank,
        alpha=lora.alpha,
        modules=", ".join(lora.target_modules),
        steps=outcome.total_steps,
        rows=training.batch_size * training.gradient_accumulation,
        learning_rate=training.learning_rate,
        schedule=training.schedule,
        seed=training.seed,
        loss="none" if outcome.final_loss is None else f"{outcome.final_loss:.4f}",
        seconds=outcome.train_seconds,
    )


def _cell(text: str) -> str:
    """Return a user's text as it may stand in a table."""
    return "`" + text.replace("|", "/").replace("`", "'") + "`"
