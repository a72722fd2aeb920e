"""A benchmark's numbers as a table on the terminal and as a picture."""

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
from matplotlib import pyplot as plt

COLUMNS = (
    ("tok/s", "output_tokens_per_s", 1.0, ".0f"),
    ("TTFT p50 ms", "ttft_percentiles_s.p50", 1e3, ".0f"),
    ("p99", "ttft_percentiles_s.p99", 1e3, ".0f"),
    ("TPOT p50 ms", "tpot_percentiles_s.p50", 1e3, ".1f"),
    ("p99", "tpot_percentiles_s.p99", 1e3, ".1f"),
    ("ITL p50 ms", "itl_percentiles_s.p50", 1e3, ".1f"),
    ("p95", "itl_percentiles_s.p95", 1e3, ".1f"),
    ("p99", "itl_percentiles_s.p99", 1e3, ".1f"),
    ("goodput req/s", "goodput_requests_per_s", 1.0, ".2f"),
    ("fairness", "fairness", 1.0, ".3f"),
    ("of own base", "ratio_to_base", 1.0, ".2f"),
    ("CPU ms/token", "cpu_s_per_token", 1e3, ".2f"),
)


def print_table(document: dict[str, Any]) -> None:
    console = Console(width=200)
    machine = document["machine"]
    console.print(f"{machine['processor']}, {machine['num_cores']} cores, torch {machine['torch']}")
    table = Table("system", "work", "precision")
    for title, *_ in COLUMNS:
        table.add_column(title, justify="right")
    table.add_column("hits by tier")
    for run in document["runs"]:
        hits = ", ".join(f"{tier} {part:.0%}" for tier, part in run["hit_rate"].items())
        cells = [_cell(run, *column[1:]) for column in COLUMNS]
        table.add_row(run["system"], run["name"], run["precision"], *cells, hits)
    for peer in document["peers"]:
        rate = f"{peer['output_tokens_per_s']:.0f}" if "tok_s" in peer else "–"
        note = peer.get("skipped", peer.get("name", ""))
        table.add_row(peer["system"], note, peer.get("dtype", "bf16"), rate)
    console.print(table)


def _cell(run: dict[str, Any], path: str, factor: float, form: str) -> str:
    value: Any = run
    for key in path.split("."):
        value = value.get(key) if value is not None else None
    return "–" if value is None else format(value * factor, form)


def write_plot(document: dict[str, Any], path: Path) -> None:
    """Draw throughput by run, and the distributions of first tokens and of gaps between tokens."""
    figure, (rates, first, gaps) = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    bars = [(f"{r['system']} {r['name']}\n{r['precision']}", r) for r in document["runs"]]
    bars += [(p["system"], p) for p in document["peers"] if "tok_s" in p]
    rates.barh([b[0] for b in bars], [b[1]["output_tokens_per_s"] for b in bars])
    rates.invert_yaxis()
    rates.set_xlabel("generated tokens a second")
    for run in document["runs"]:
        label = f"{run['system']} {run['name']}"
        rows = run["requests"]
        _draw(first, [r["ttft_s"] * 1e3 for r in rows], label)
        times = [r["token_times_s"] for r in rows]
        pairs = [pair for t in times for pair in itertools.pairwise(t)]
        _draw(gaps, [(later - earlier) * 1e3 for earlier, later in pairs], label)
    first.set_xlabel("time to first token, ms")
    gaps.set_xlabel("time between tokens, ms")
    first.set_ylabel("part of the requests")
    gaps.legend(fontsize="x-small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw(axes: Any, values: list[float], label: str) -> None:
    if values:
        axes.ecdf(values, label=label)
