"""The embedded base model at each precision, and its perplexity on real text."""

import json
import math
import os
from pathlib import Path
from typing import Any

from loraland_core.catalogue import BaseModelEntry
from loraland_core.store import StoreConfig
from loraland_engine.engine import Engine, EngineConfig
from loraland_models import sources, weights

NAME = "smollm2-135m-instruct"
REPOSITORY = Path(__file__).parents[1]
NUM_PASSAGES = 16
PASSAGE_TOKENS = 256


def load(precision: str) -> Any:
    quantization: Any = precision if precision in ("nf4", "int8") else "none"
    dtype: Any = "float32" if quantization != "none" else precision
    chosen = weights.Precision(dtype=dtype, quantization=quantization)
    return weights.load_model(_resolved(), chosen, device="cpu")


def tokenizer() -> Any:
    return weights.load_tokenizer(_resolved())


def perplexity(model: Any, tokenizer: Any) -> float:
    """Return it over pieces of real text, each scored by the engine itself."""
    config = EngineConfig(max_running=4, context_tokens=PASSAGE_TOKENS + 8, num_slots=1)
    engine = Engine(model, tokenizer, config)
    for index, ids in enumerate(_passages(tokenizer)):
        engine.submit_score(str(index), ids[:1], [ids[1:]])
    total, num_tokens = 0.0, 0
    while engine.has_work():
        for output in engine.step():
            total += output.logprob
            num_tokens += len(output.logprobs)
    return math.exp(-total / num_tokens)


def _passages(tokenizer: Any) -> list[list[int]]:
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
    return [ids[start : start + PASSAGE_TOKENS] for start in starts]


def _resolved() -> sources.ResolvedModel:
    entry = BaseModelEntry.model_validate({"source": {"embedded": NAME}})
    cache = Path(os.environ.get("LORALAND_CACHE_DIR") or Path.home() / ".cache" / "loraland")
    return sources.resolve(
        NAME, entry, cache_dir=cache, store=StoreConfig(bucket="unused"), report=print
    )
