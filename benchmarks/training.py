"""Our training loop beside PEFT under Transformers' ``Trainer``, as their documentation shows it, in one run.

Both train the same adapter on the same base model over the same rows of viggo in the same steps, each
run in a process of its own, in turn. Counted are the tokens of prompts and completions, never padding.
The prompt is an instruction with what the answer may consist of, as in the paper, and then the
sentence. A third subject is our loop with what the prompts have in common computed row by row. The
rows are read from ``LORALAND_DATASETS`` or ``../shared/datasets``::

    python benchmarks/training.py --json training.json

Fails where a target is missed: the ratio, the loss, the memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
SUBJECTS = ("peer", "ours", "ours, nothing shared")
LIMIT_S = 3600
LEAST_RATIO = 1.5
MOST_LOSS_DIFFERENCE = 0.02
FUNCTIONS = (
    "inform, request, give_opinion, confirm, verify_attribute, suggest, request_explanation,"
    " recommend, request_attribute"
)
ATTRIBUTES = (
    "name, exp_release_date, release_year, developer, esrb, rating, genres, player_perspective,"
    " has_multiplayer, platforms, available_on_steam, has_linux_release, has_mac_release, specifier"
)
DATASET = {
    "inline": {"rows": "-"},
    "prompt": (
        "Construct the meaning representation of the target sentence: one function with attributes"
        f" and their values, in the order of the sentence. The function is one of: {FUNCTIONS}. The"
        f" attributes are among: {ATTRIBUTES}.\n\nTarget sentence: {{target}}\nMeaning"
        " representation: "
    ),
    "completion": "{meaning_representation}",
}


def main() -> int:
    """Run every subject with every seed, print the table, and judge."""
    arguments = _parse()
    runs = [
        run(subject, seed, arguments)
        for seed in range(arguments.seeds)
        for subject in SUBJECTS[: 3 if seed == 0 and not arguments.two else 2]
    ]
    document = summarize(runs, arguments)
    print_table(document)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    for miss in document["missed"]:
        print(f"missed: {miss}", file=sys.stderr)
    return int(bool(document["missed"]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of a run")
    parser.add_argument("--batch-size", type=int, default=8, help="rows the peer takes at once")
    parser.add_argument("--accumulation", type=int, default=2, help="of them make a step")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--learning-rate", default="0.002")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--held-out", type=int, default=32, help="rows of the final loss")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--two", action="store_true", help="without the third subject")
    parser.add_argument("--quantization", choices=("none", "nf4"), default="none")
    parser.add_argument(
        "--base-model", default="smollm2-135m-instruct", help="embedded, or a folder"
    )
    parser.add_argument("--json", type=Path, help="keep all numbers in this file")
    return parser.parse_args()


def run(subject: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what one run in a process of its own measured."""
    num_rows = arguments.steps * arguments.batch_size * arguments.accumulation
    asked = {
        "subject": subject,
        "seed": seed,
        "baseModel": arguments.base_model,
        "quantization": arguments.quantization,
        "dataset": DATASET,
        "rows": read_rows("train.jsonl", num_rows),
        "heldOut": read_rows("test.jsonl", arguments.held_out),
        "steps": arguments.steps,
        "batchSize": arguments.batch_size,
        "accumulation": arguments.accumulation,
        "rank": arguments.rank,
        "learningRate": arguments.learning_rate,
        "maxTokens": arguments.max_tokens,
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("training_subjects.py"))],
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LIMIT_S,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def read_rows(file: str, num_rows: int) -> list[dict[str, Any]]:
    """Return rows of the data set, spread over the whole file."""
    root = Path(os.environ.get("LORALAND_DATASETS") or REPOSITORY.parent / "shared" / "datasets")
    path = root / "viggo" / file
    if not path.is_file():
        raise SystemExit(f"no copy of viggo at {path}: set LORALAND_DATASETS to where copies lie")
    lines = path.read_text().splitlines()
    every = max(1, len(lines) // num_rows)
    return [json.loads(line) for line in lines[::every][:num_rows]]


def summarize(runs: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the document: each subject's means, the ratios to the peer, and what was missed."""
    subjects = {}
    for name in SUBJECTS:
        own = [r for r in runs if r["subject"] == name]
        if own:
            subjects[name] = {
                "tokens_per_s": statistics.mean(r["tokens_per_s"] for r in own),
                "final_loss": statistics.mean(r["final_loss"] for r in own),
                "peak_memory_bytes": max(r["peak_memory_bytes"] for r in own),
                "losses": {str(r["seed"]): r["losses"] for r in own},
            }
    peer, ours = subjects["peer"], subjects["ours"]
    for subject in subjects.values():
        subject["ratio_to_peer"] = subject["tokens_per_s"] / peer["tokens_per_s"]
    difference = abs(ours["final_loss"] / peer["final_loss"] - 1)
    missed = []
    if ours["ratio_to_peer"] < LEAST_RATIO:
        missed.append(
            f"{ours['ratio_to_peer']:.2f} times the peer's speed, less than {LEAST_RATIO}"
        )
    if difference > MOST_LOSS_DIFFERENCE:
        missed.append(f"final losses differ by {difference:.1%}, more than 2 %")
    if ours["peak_memory_bytes"] > peer["peak_memory_bytes"]:
        missed.append("more memory than the peer")
    settings = {k: str(v) for k, v in vars(arguments).items() if k != "json"}
    return {
        "schemaVersion": 1,
        "ratio_to_peer": ours["ratio_to_peer"],
        "loss_difference": difference,
        "missed": missed,
        "settings": settings,
        "subjects": subjects,
        "runs": runs,
    }


def print_table(document: dict[str, Any]) -> None:
    print("| | tokens a second | to the peer | peak memory, GB | final loss |")
    print("|---|---|---|---|---|")
    for name, found in document["subjects"].items():
        print(
            f"| {name} | {found['tokens_per_s']:.0f} | {found['ratio_to_peer']:.2f} |"
            f" {found['peak_memory_bytes'] / 1e9:.2f} | {found['final_loss']:.4f} |"
        )


if __name__ == "__main__":
    raise SystemExit(main())
