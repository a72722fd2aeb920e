"""What serving precision costs an adapter, and what it gains: the quickstart's held-out rows.

Answers the rows with one trained adapter over float32, int8 and NF4 weights on the bare engine, and
prints score and speed of each::

    python benchmarks/precision.py --adapter FOLDER

where FOLDER holds PEFT's files, such as a running stack's
``.loraland/s3/loraland/adapters/default/support-desk/<digest>``.
"""

import argparse
import json
import time
from pathlib import Path

import forms
from loraland_core import paths
from loraland_core.catalogue import Quantization
from loraland_engine import offline
from loraland_engine.sequence import SamplingParams
from loraland_models import metrics, weights
from rich.console import Console
from rich.table import Table

QUANTIZATIONS: tuple[Quantization, ...] = ("none", "int8", "nf4")


def measure(quantization: Quantization, adapter: Path) -> tuple[float, float, float]:
    """Return the shares of right fields and of right rows, and output tokens a second."""
    text = (forms.EXAMPLES / "quickstart/evaluation.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    precision = weights.Precision(dtype="float32", quantization=quantization)
    engine = forms.build_engine(paths.cache_dir(), precision)
    prompts = [engine.tokenizer(row["message"] + "\n")["input_ids"] for row in rows]
    started_s = time.perf_counter()
    answers = offline.generate(
        engine, prompts, SamplingParams(max_tokens=48), adapter_folder=adapter
    )
    seconds = time.perf_counter() - started_s
    engine.close()
    texts = [answer.text for answer in answers]
    expected = [row["answer"] for row in rows]
    num_tokens = sum(len(answer.token_ids) for answer in answers)
    return (
        metrics.score("JsonFieldMatch", texts, expected),
        metrics.score("ExactMatch", texts, expected),
        num_tokens / seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("::")[0])
    parser.add_argument("--adapter", type=Path, required=True, help="a folder as PEFT writes it")
    adapter = parser.parse_args().adapter
    table = Table("served on", "fields", "rows", "tokens/s")
    for quantization in QUANTIZATIONS:
        fields, whole_rows, tokens_per_s = measure(quantization, adapter)
        name = "float32" if quantization == "none" else quantization
        table.add_row(name, f"{fields:.3f}", f"{whole_rows:.3f}", f"{tokens_per_s:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
