"""The embedded base model at each precision, an adapter trained on it, and perplexity on real text."""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from loraland_core.catalogue import BaseModelEntry
from loraland_core.store import StoreConfig
from loraland_engine.engine import Engine, EngineConfig
from loraland_models import encoding, sources, weights
from peft import LoraConfig, get_peft_model

NAME = "smollm2-135m-instruct"
REPOSITORY = Path(__file__).parents[1]
QUICKSTART = REPOSITORY / "examples" / "quickstart"
# The first is what the trained adapter is for.
PROMPTS = ("Where is my order 4711? I bought a desk lamp. This is urgent!\n", "def add(a, b):")
NUM_PASSAGES = 16
PASSAGE_TOKENS = 256
NUM_ANSWERS = 64
NUM_STEPS = 24
BATCH_ROWS = 4
RANK = 16
LEARNING_RATE = 3e-3

# Tokens that are given, and those that are scored after them.
Piece = tuple[list[int], list[int]]


def load(precision: str) -> Any:
    quantization: Any = precision if precision in ("nf4", "int8") else "none"
    dtype: Any = "float32" if quantization != "none" else precision
    chosen = weights.Precision(dtype=dtype, quantization=quantization)
    return weights.load_model(_resolved(), chosen, device="cpu")


def tokenizer() -> Any:
    return weights.load_tokenizer(_resolved())


def train_adapter(folder: Path, tokenizer: Any) -> Path:
    """Train on the quickstart's rows until answers have their form; return the folder of files."""
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    model = get_peft_model(load("float32"), config)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    rows = _rows("train", tokenizer)[: NUM_STEPS * BATCH_ROWS]
    for start in range(0, len(rows), BATCH_ROWS):
        ids, labels = _batch(rows[start : start + BATCH_ROWS], pad_id=tokenizer.pad_token_id)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(str(folder))
    return folder


def perplexity(model: Any, tokenizer: Any, pieces: list[Piece], adapter: Path | None) -> float:
    """Return that of the pieces' second parts, scored by the engine itself."""
    config = EngineConfig(max_running=4, context_tokens=PASSAGE_TOKENS + 8, num_slots=1)
    engine = Engine(model, tokenizer, config)
    if adapter is not None:
        engine.insert_adapter("adapter", engine.read_adapter(adapter))
    for index, (given, scored) in enumerate(pieces):
        engine.submit_score(str(index), given, [scored], adapter_id="adapter" if adapter else "")
    total, num_tokens = 0.0, 0
    while engine.has_work():
        for output in engine.step():
            total += output.logprob
            num_tokens += len(output.logprobs)
    return math.exp(-total / num_tokens)


def passages(tokenizer: Any) -> list[Piece]:
    """Return passages of DROP where a copy is at hand, else of this project's own documents."""
    root = Path(os.environ.get("LORALAND_DATASETS") or REPOSITORY.parent / "shared" / "datasets")
    rows = root / "drop" / "test.jsonl"
    if rows.exists():
        read = [json.loads(line)["passage"] for line in rows.open()]
        text = "\n\n".join(dict.fromkeys(read))
    else:
        text = "\n\n".join(p.read_text() for p in sorted((REPOSITORY / "docs").rglob("*.md")))
    ids = tokenizer.encode(text)
    starts = range(0, min(len(ids), NUM_PASSAGES * PASSAGE_TOKENS), PASSAGE_TOKENS)
    return [(ids[s : s + 1], ids[s + 1 : s + PASSAGE_TOKENS]) for s in starts]


def answers(tokenizer: Any) -> list[Piece]:
    """Return the quickstart's held-out rows."""
    return _rows("evaluation", tokenizer)[:NUM_ANSWERS]


def _rows(name: str, tokenizer: Any) -> list[Piece]:
    rows = [json.loads(line) for line in (QUICKSTART / f"{name}.jsonl").read_text().splitlines()]
    return [
        (
            encoding.encode_prompt(tokenizer, row["message"] + "\n"),
            encoding.encode_completion(tokenizer, row["answer"]),
        )
        for row in rows
    ]


def _batch(rows: list[Piece], *, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and labels, padded on the right; only answers are learnt."""
    length = max(len(given) + len(scored) for given, scored in rows)
    ids = torch.full((len(rows), length), pad_id)
    labels = torch.full((len(rows), length), -100)
    for index, (given, scored) in enumerate(rows):
        end = len(given) + len(scored)
        ids[index, :end] = torch.tensor([*given, *scored])
        labels[index, len(given) : end] = torch.tensor(scored)
    return ids, labels


def _resolved() -> sources.ResolvedModel:
    entry = BaseModelEntry.model_validate({"source": {"embedded": NAME}})
    cache = Path(os.environ.get("LORALAND_CACHE_DIR") or Path.home() / ".cache" / "loraland")
    return sources.resolve(
        NAME, entry, cache_dir=cache, store=StoreConfig(bucket="unused"), report=print
    )
