"""What the demo prints at its end, and what ``--json`` writes. Builds; the story prints."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from loraland_cli.demo import comparison
from loraland_cli.demo.comparison import Pair, Score, Verdict

SCHEMA_VERSION = 1
_MAX_ANSWER = 220


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Everything that the demo learned."""

    job: str
    adapter: str
    base_model: str
    digest: str
    uri: str
    files: str
    num_evaluated: int
    scores: Sequence[Score]
    pairs: Sequence[Pair]
    verdict: Verdict
    seconds_by_station: Mapping[str, float]


def build_answers(outcome: Outcome) -> Table:
    """Return the questions with both answers side by side."""
    table = Table(title="Held-out questions, base model and adapter", show_lines=True)
    table.add_column("question and expected answer", ratio=4, overflow="fold")
    table.add_column(f"base model {outcome.base_model}", ratio=3, overflow="fold")
    table.add_column(f"adapter {outcome.adapter}", ratio=3, overflow="fold")
    for pair in outcome.pairs:
        question = escape(pair.question.prompt.strip())
        expected = escape(_breakable(pair.question.expected))
        table.add_row(
            f"{question}\n[green]{expected}[/green]",
            _cell(pair.base.text, pair.base_score),
            _cell(pair.tuned.text, pair.tuned_score),
        )
    return table


def _cell(text: str, score: float) -> str:
    mark = "[green]✓[/green]" if score == 1 else "[yellow]~[/yellow]" if score else "[red]✗[/red]"
    shown = _breakable(" ".join(text.split()))
    if len(shown) > _MAX_ANSWER:
        shown = shown[: _MAX_ANSWER - 1] + "…"
    return f"{mark} {score:.0%}  {escape(shown)}"


def _breakable(text: str) -> str:
    """Give compact JSON spaces to break lines at."""
    return text.replace('","', '", "').replace(',"', ', "').replace('":', '": ')


def build_scores(outcome: Outcome) -> Table:
    table = Table(title=f"Scores on all {outcome.num_evaluated} held-out rows, and latency")
    table.add_column("")
    for column in ("base model", "adapter"):
        table.add_column(column, justify="right")
    for score in outcome.scores:
        table.add_row(score.metric, f"{score.base:.3f}", f"{score.tuned:.3f}")
    first_base, total_base = comparison.median_latency([p.base for p in outcome.pairs])
    first_tuned, total_tuned = comparison.median_latency([p.tuned for p in outcome.pairs])
    table.add_row("first token, median", f"{first_base:.2f} s", f"{first_tuned:.2f} s")
    table.add_row("whole answer, median", f"{total_base:.2f} s", f"{total_tuned:.2f} s")
    return table


def to_json(outcome: Outcome) -> str:
    """Return the numbers, for programs."""
    first = outcome.scores[0] if outcome.scores else None
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "job": outcome.job,
        "adapter": outcome.adapter,
        "base_model": outcome.base_model,
        "digest": outcome.digest,
        "uri": outcome.uri,
        "scores": {
            "metric": first.metric if first else None,
            "base": first.base if first else None,
            "tuned": first.tuned if first else None,
        },
        "all_scores": [dataclasses.asdict(score) for score in outcome.scores],
        "num_evaluated": outcome.num_evaluated,
        "answers": [_answer(pair) for pair in outcome.pairs],
        "is_better": outcome.verdict.is_better,
        "verdict": outcome.verdict.sentence,
        "seconds_by_station": dict(outcome.seconds_by_station),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _answer(pair: Pair) -> dict[str, Any]:
    return {
        "prompt": pair.question.prompt,
        "expected": pair.question.expected,
        "base": {**dataclasses.asdict(pair.base), "score": pair.base_score},
        "tuned": {**dataclasses.asdict(pair.tuned), "score": pair.tuned_score},
    }
