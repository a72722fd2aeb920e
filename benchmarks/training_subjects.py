"""One training run of one subject, in a process of its own: our loop, or PEFT under Transformers.

Started by ``training.py`` with what to do as JSON; prints what it measured as JSON.
"""

import itertools
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import environment  # noqa: F401 -- before torch
import torch
from loraland_core import paths
from loraland_core.catalogue import BaseModelEntry
from loraland_core.resources.dataset import DatasetSpec
from loraland_core.resources.finetunejob import LoraSpec, TrainingSpec
from loraland_models import sources, weights
from loraland_models.noise import hush
from loraland_models.weights import Precision
from loraland_trainer import examples, loop, model, packing, steps
from loraland_trainer.checkpoints import Checkpoints
from loraland_trainer.examples import Example
from loraland_trainer.progress import Board
from loraland_trainer.termination import Terminator
from torch import nn

NOTHING_SHARED = "ours, nothing shared"


class NoStore:
    """An artifact store that has nothing; the runs here are never interrupted."""

    def find_objects(self, prefix: str) -> Iterator[Any]:
        return iter(())


class Clock(Board):
    """Notes when each step ended, and says so on the terminal."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.ended_s: list[float] = []
        self._label = label

    def update(self, **changes: Any) -> None:
        super().update(**changes)
        if "loss" in changes:
            self.ended_s.append(time.monotonic())
            p = self.progress
            text = f"\r{self._label}: step {p.step}/{p.total_steps}, loss {p.loss:.4f}  "
            print(text, end="", file=sys.stderr, flush=True)


def main() -> None:
    """Run what standard input asks for."""
    hush()
    asked = json.load(sys.stdin)
    if asked["subject"] == NOTHING_SHARED:
        packing.LEAST_SHARED_TOKENS = sys.maxsize
    torch.manual_seed(asked["seed"])
    base, tokenizer = _load(asked)
    learned, held_out = (_examples(asked, part, tokenizer) for part in ("rows", "heldOut"))
    lora = LoraSpec(rank=asked["rank"], alpha=2 * asked["rank"], target_modules=["all-linear"])
    tuned = model.attach_adapter(base, lora)
    spec = TrainingSpec(
        max_steps=asked["steps"],
        batch_size=asked["batchSize"],
        gradient_accumulation=asked["accumulation"],
        learning_rate=asked["learningRate"],
        seed=asked["seed"],
    )
    clock = Clock(f"{asked['subject']}, seed {asked['seed']}")
    _forget_peak()
    run = run_peer if asked["subject"] == "peer" else run_ours
    with tempfile.TemporaryDirectory() as name:
        losses, parts = run(
            tuned,
            learned,
            spec,
            lora=lora,
            tokenizer=tokenizer,
            clock=clock,
            folder=Path(name),
        )
    print(file=sys.stderr)
    peak_bytes = _memory_bytes("VmHWM")
    tokens = [sum(learned[row].num_tokens for row in part) for part in parts]
    found = {
        "subject": asked["subject"],
        "seed": asked["seed"],
        "losses": losses,
        "final_loss": held_out_loss(tuned, held_out),
        # The first step warms up whatever the subject warms up.
        "tokens_per_s": sum(tokens[1:]) / (clock.ended_s[-1] - clock.ended_s[0]),
        "tokens": sum(tokens),
        "step_s": [b - a for a, b in itertools.pairwise(clock.ended_s)],
        "peak_memory_bytes": peak_bytes,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(found))


def _examples(asked: dict[str, Any], part: str, tokenizer: Any) -> Sequence[Example]:
    return examples.build_examples(
        asked[part],
        DatasetSpec.model_validate(asked["dataset"]),
        tokenizer,
        max_tokens=asked["maxTokens"],
    )


def _load(asked: dict[str, Any]) -> tuple[Any, Any]:
    if Path(asked["baseModel"]).is_dir():
        source = {"directory": str(Path(asked["baseModel"]).resolve())}
    else:
        source = {"embedded": asked["baseModel"]}
    entry = BaseModelEntry.model_validate({"source": source})
    resolved = sources.resolve("base", entry, cache_dir=paths.cache_dir(), report=lambda _: None)
    precision = Precision(dtype="float32", quantization=asked["quantization"])
    return weights.load_model(resolved, precision), weights.load_tokenizer(resolved)


def step_rows(learned: Sequence[Example], spec: TrainingSpec) -> list[list[int]]:
    """Return the rows of each step, the same for every subject."""
    return steps.plan(
        [example.num_tokens for example in learned],
        is_packed=True,
        rows_a_step=loop.rows_a_step(spec),
        parts_a_step=1,
        num_steps=spec.max_steps or 0,
        seed=spec.seed,
    )


def run_ours(
    tuned: Any,
    learned: Sequence[Example],
    spec: TrainingSpec,
    *,
    lora: LoraSpec,
    tokenizer: Any,
    clock: Clock,
    folder: Path,
) -> tuple[list[float], list[list[int]]]:
    """Train as a training pod does."""
    store: Any = NoStore()
    outcome = loop.train(
        tuned,
        learned,
        spec,
        lora=lora,
        precision=Precision(dtype="float32", quantization="none"),
        pad_token_id=int(tokenizer.pad_token_id),
        work_dir=folder,
        board=clock,
        checkpoints=Checkpoints(store, "benchmark", keep_last=1, work_dir=folder),
        checkpoint_every_steps=10**6,
        terminator=Terminator(),
    )
    return outcome.losses, step_rows(learned, spec)


def run_peer(
    tuned: Any,
    learned: Sequence[Example],
    spec: TrainingSpec,
    *,
    lora: LoraSpec,
    tokenizer: Any,
    clock: Clock,
    folder: Path,
) -> tuple[list[float], list[list[int]]]:
    """Train as the documentation of PEFT and Transformers shows: padded batches, ``Trainer``."""
    from transformers import (  # noqa: PLC0415 -- the other subject does without
        DataCollatorForSeq2Seq,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if "loss" in given["logs"]:
                clock.update(step=state.global_step, loss=given["logs"]["loss"])

    clock.update(total_steps=spec.max_steps)
    parts = step_rows(learned, spec)
    items = [_padded_item(learned[row]) for part in parts for row in part]
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        max_steps=spec.max_steps or -1,
        learning_rate=float(spec.learning_rate),
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(float(spec.warmup_ratio) * (spec.max_steps or 0)),
        # Rows come in the order of the other subject, so that losses can be compared step by step.
        train_sampling_strategy="sequential",
        seed=spec.seed,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=tuned,
        args=arguments,
        train_dataset=items,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
        callbacks=[Watch()],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, parts


def _padded_item(example: Example) -> dict[str, list[int]]:
    ids = [*example.prompt, *example.completion]
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [-100] * len(example.prompt) + list(example.completion),
    }


@torch.no_grad()
def held_out_loss(tuned: Any, held_out: Sequence[Example]) -> float:
    """Return the cross entropy a completion token, by plain single rows: the same for all."""
    tuned.eval()
    total, count = 0.0, 0
    for example in held_out:
        ids = torch.tensor([[*example.prompt, *example.completion]])
        logits = tuned(input_ids=ids, use_cache=False).logits[0]
        predicted = logits[len(example.prompt) - 1 : -1]
        wanted = torch.tensor(example.completion)
        total += float(nn.functional.cross_entropy(predicted, wanted, reduction="sum"))
        count += len(example.completion)
    return total / count


def _forget_peak() -> None:
    """Let the system measure the peak anew: loading is not training."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
