"""What a JSON schema changes: the quickstart's held-out rows, free and held to a form.

Asks the base model and, if given, a trained adapter on the bare engine; prints one row for each::

    python benchmarks/forms.py --adapter FOLDER
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from loraland_core.catalogue import BaseModelEntry
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.grammar import Grammar, GrammarCompiler
from loraland_engine.sequence import SamplingParams
from loraland_models import encoding, metrics, sources, weights

EXAMPLES = Path(__file__).parents[1] / "examples"
PARAMS = SamplingParams(max_tokens=64)


def build_engine(cache_dir: Path, precision: weights.Precision) -> Engine:
    name = "smollm2-135m-instruct"
    entry = BaseModelEntry.model_validate({"source": {"embedded": name}})
    source = sources.resolve(name, entry, cache_dir=cache_dir, store=None)
    model = weights.load_model(source, precision)
    config = EngineConfig(context_tokens=512, num_slots=1)
    return Engine(model, weights.load_tokenizer(source), config)


def answer(engine: Engine, rows: list[dict[str, str]], adapter: str, form: Grammar | None) -> Any:
    """Return the answers in the rows' order, and the seconds and tokens that they took."""
    compiler = GrammarCompiler(
        engine.tokenizer,
        vocabulary_size=engine.vocabulary_size,
        eos_token_ids=engine.eos_token_ids,
    )
    constraint = compiler.compile(form) if form else None
    started_s = time.perf_counter()
    for index, row in enumerate(rows):
        prompt = encoding.encode_prompt(engine.tokenizer, row["message"] + "\n")
        engine.submit(str(index), prompt, PARAMS, adapter_id=adapter, constraint=constraint)
    texts = [""] * len(rows)
    num_tokens = 0
    while engine.has_work():
        for output in engine.step():
            texts[int(output.request_id)] += output.text
            num_tokens += len(output.token_ids)
    return texts, time.perf_counter() - started_s, num_tokens


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, help="a folder as PEFT writes it")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "loraland")
    options = parser.parse_args()
    lines = (EXAMPLES / "quickstart" / "evaluation.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[: options.rows]]
    references = [row["answer"] for row in rows]
    schema = (EXAMPLES / "support-desk.schema.json").read_text()
    engine = build_engine(options.cache, weights.Precision("float32", "none"))
    who = {"base": ""}
    if options.adapter:
        engine.insert_adapter("adapter", engine.read_adapter(options.adapter))
        who["adapter"] = "adapter"
    print(f"{len(rows)} rows: fields right, whole lines right, JSON, tokens/s")
    for name, adapter in who.items():
        for form in (None, Grammar("json_schema", schema)):
            texts, wall_s, num_tokens = answer(engine, rows, adapter, form)
            fields = metrics.score("JsonFieldMatch", texts, references)
            exact = metrics.score("ExactMatch", texts, references)
            valid = sum(map(is_json, texts)) / len(texts)
            kind = "schema" if form else "free"
            speed = num_tokens / wall_s
            print(f"{name:8} {kind:7} {fields:.3f} {exact:.3f} {valid:.3f} {speed:6.0f}")


if __name__ == "__main__":
    main()
