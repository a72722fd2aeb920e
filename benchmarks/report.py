"""A benchmark's numbers as a table on the terminal and as a picture."""

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
from matplotlib import pyplot as plt

# Title, where the number is, factor, format.
Column = tuple[str, str, float, str]
COLUMNS: tuple[Column, ...] = (
    ("tok/s", "output_tokens_per_s", 1.0, ".0f"),
    ("ratio", "ratio", 1.0, ".2f"),
    ("TTFT p50 ms", "ttft_percentiles_s.p50", 1e3, ".0f"),
    ("p99", "ttft_percentiles_s.p99", 1e3, ".0f"),
    ("TPOT p50 ms", "tpot_percentiles_s.p50", 1e3, ".1f"),
    ("p99", "tpot_percentiles_s.p99", 1e3, ".1f"),
    ("ITL p50 ms", "itl_percentiles_s.p50", 1e3, ".1f"),
    ("p95", "itl_percentiles_s.p95", 1e3, ".1f"),
    ("p99", "itl_percentiles_s.p99", 1e3, ".1f"),
    ("goodput req/s", "goodput_requests_per_s", 1.0, ".2f"),
    ("fairness", "fairness", 1.0, ".3f"),
    ("CPU ms/token", "cpu_s_per_token", 1e3, ".2f"),
    ("of it front", "front_cpu_s_per_token", 1e3, ".2f"),
)
_MEMORY: tuple[Column, ...] = tuple(
    (title, f"memory.{name}_bytes", 1 / 1e6, ".0f")
    for title, name in (
        ("imports", "import"),
        ("weights", "weight"),
        ("adapters", "adapter"),
        ("KV", "kv"),
        ("bound", "bound"),
        ("measured", "process"),
    )
)
_VERDICTS = {"aim": "reaches the aim", "must": "holds", "missed": "**missed**"}


def print_table(document: dict[str, Any]) -> None:
    console = Console(width=200)
    console.print(_machine(document))
    for title, head, rows in _tables(document):
        if rows:
            table = Table(*head, title=title)
            for row in rows:
                table.add_row(*row)
            console.print(table)


def build_markdown(document: dict[str, Any]) -> str:
    """Return the tables as a page of documentation has them, with the command above."""
    command = " ".join(["python", *document["command"]])
    lines = [f"{_machine(document)}. Command: `{command}`."]
    for title, head, rows in _tables(document):
        if rows:
            cells = [head, ["---"] * len(head), *rows]
            lines += ["", f"{title}:", "", *(f"| {' | '.join(row)} |" for row in cells)]
    return "\n".join(lines) + "\n"


def _machine(document: dict[str, Any]) -> str:
    machine = document["machine"]
    return f"{machine['processor']}, {machine['num_cores']} cores, torch {machine['torch']}"


def _tables(document: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    return [
        ("Targets", ["what", "must", "aim", "measured", ""], _target_rows(document)),
        (
            "Runs",
            ["system", "work", "precision", *(column[0] for column in COLUMNS), "hits by tier"],
            _run_rows(document),
        ),
        (
            "Memory of the engine process, MB",
            ["system", "work", "precision", *(column[0] for column in _MEMORY)],
            [
                [run["system"], run["name"], run["precision"], *_cells(run, _MEMORY)]
                for run in document["runs"]
                if run["memory"]
            ],
        ),
    ]


def _target_rows(document: dict[str, Any]) -> list[list[str]]:
    rows = []
    for target in document["targets"]:
        if target["measured"] is None:
            continue
        sign = "≥" if target["is_least"] else "≤"
        must, aim = (
            "–" if limit is None else f"{sign} {limit:g}"
            for limit in (target["must"], target["aim"])
        )
        verdict = _VERDICTS[target["verdict"]]
        rows.append([target["name"], must, aim, f"{target['measured']:.3g}", verdict])
    return rows


def _run_rows(document: dict[str, Any]) -> list[list[str]]:
    rows = []
    for run in document["runs"]:
        hits = ", ".join(f"{tier} {part:.0%}" for tier, part in run["hit_rate"].items() if part)
        work = run["name"] + (f" ({run['against_this']})" if run["against_this"] else "")
        rows.append([run["system"], work, run["precision"], *_cells(run, COLUMNS), hits or "–"])
    empty = ["–"] * len(COLUMNS)
    for peer in document["peers"]:
        rate = f"{peer['output_tokens_per_s']:.0f}" if "tok_s" in peer else "–"
        work = peer["name"] + ("" if peer["num_adapters"] else " (base)")
        note = peer.get("skipped", "–").replace("\n", " ").replace("|", "/")
        rows.append([peer["system"], work, peer.get("dtype", "bf16"), rate, *empty[1:], note])
    return rows


def _cells(run: dict[str, Any], columns: tuple[Column, ...]) -> list[str]:
    return [_cell(run, *column[1:]) for column in columns]


def _cell(run: dict[str, Any], path: str, factor: float, form: str) -> str:
    value: Any = run
    for key in path.split("."):
        value = value.get(key) if value is not None else None
    return "–" if value is None else format(value * factor, form)


def write_plot(document: dict[str, Any], path: Path) -> None:
    """Draw throughput by run, and the distributions of first tokens and of gaps between tokens."""
    figure, (rates, first, gaps) = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    bars = [(_label(run), run) for run in document["runs"]]
    bars += [(p["system"], p) for p in document["peers"] if "tok_s" in p]
    rates.barh([b[0] for b in bars], [b[1]["output_tokens_per_s"] for b in bars])
    rates.invert_yaxis()
    rates.set_xlabel("generated tokens a second")
    for run in document["runs"]:
        label = _label(run)
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


def _label(run: dict[str, Any]) -> str:
    other = f", {run['against_this']}" if run["against_this"] else ""
    return f"{run['system']} {run['name']}{other}, {run['precision']}"


def _draw(axes: Any, values: list[float], label: str) -> None:
    if values:
        axes.ecdf(values, label=label)
