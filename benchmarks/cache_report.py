"""The numbers of ``cache.py`` as tables on the terminal and as a picture."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
from matplotlib import pyplot as plt

NAMES = {
    "base": "base model, no adapter",
    "slot": "resident in a slot",
    "host": "in memory",
    "disk": "on the node's disk",
    "absent": "cold, in S3",
}


def print_table(document: dict[str, Any]) -> None:
    console = Console()
    table = Table("adapter", "requests", "TTFT p50 ms", "p95 ms")
    for tier, found in document["ttft_percentiles_s"].items():
        count = sum(row["tier"] == tier for row in document["tiers"])
        table.add_row(NAMES[tier], str(count), _ms(found["p50"]), _ms(found["p95"]))
    console.print(table)
    table = Table("working set / slots", "tokens/s of each run", "slot hits")
    for ratio, runs in _by_ratio(document).items():
        rates = ", ".join(f"{run['output_tokens_per_s']:.0f}" for run in runs)
        hits = sum(run["hit_rate"].get("slot", 0.0) for run in runs) / len(runs)
        table.add_row(f"{ratio:g}", rates, f"{hits:.0%}")
    console.print(table)
    ratio = document["throughput_ratio_at_8x_slots"]
    console.print(f"throughput at 8 times the slots over all resident: {ratio:.3f}")


def write_plot(document: dict[str, Any], path: Path) -> None:
    """Draw the times to first token by tier, and throughput over the size of the working set."""
    figure, (first, cliff) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for tier in document["ttft_percentiles_s"]:
        values = [row["ttft_s"] * 1e3 for row in document["tiers"] if row["tier"] == tier]
        if values:
            first.ecdf(values, label=NAMES[tier])
    first.set_xlabel("time to first token, ms")
    first.set_ylabel("part of the requests")
    first.legend(fontsize="small")
    for ratio, runs in _by_ratio(document).items():
        rates = [run["output_tokens_per_s"] for run in runs]
        cliff.plot([ratio] * len(rates), rates, "o", color="tab:blue")
    cliff.set_xscale("log", base=2)
    cliff.set_ylim(bottom=0)
    cliff.set_xlabel("adapters asked for, in multiples of the slots")
    cliff.set_ylabel("generated tokens a second")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _by_ratio(document: dict[str, Any]) -> dict[float, list[dict[str, Any]]]:
    found: dict[float, list[dict[str, Any]]] = {}
    for run in document["cliff"]:
        found.setdefault(run["ratio"], []).append(run)
    return found


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value * 1e3:.0f}"
