"""What ``loraland train`` shows: a bar while it trains, where there is a terminal, and a table after."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loraland_core.artifacts import Result
from loraland_core.jobspec import JobSpec, Progress
from rich import progress as bars
from rich.markup import escape
from rich.table import Table

from loraland_cli.console import err, out


@contextmanager
def shown(job: JobSpec) -> Iterator[Callable[[Progress], None] | None]:
    """Yield what is to be called with each change; without a terminal the log alone tells."""
    if not err.is_terminal:
        yield None
        return
    bar = bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[note]}"),
        console=err,
        redirect_stdout=False,
    )
    task = bar.add_task(job.name, total=None, note="")

    def update(progress: Progress) -> None:
        bar.update(
            task,
            description=f"{job.name}: {progress.phase}",
            completed=progress.step,
            total=progress.total_steps or None,
            note=describe(progress),
        )

    with bar:
        yield update


def describe(progress: Progress) -> str:
    """Return loss, speed and time left, such of them as are known."""
    parts = []
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:.0f} tokens/s")
    if progress.eta_seconds is not None and progress.step < progress.total_steps:
        minutes, seconds = divmod(round(progress.eta_seconds), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)


def show_result(job: JobSpec, result: Result, *, json_file: Path | None) -> None:
    """Print what came out, and write it where the command says."""
    table = Table(title=f"{job.namespace}/{job.adapter_name}", title_justify="left")
    table.add_column("")
    table.add_column("base", justify="right")
    table.add_column("tuned", justify="right")
    for score in result.metrics:
        table.add_row(score.name, _number(score.base), _number(score.tuned))
    out.print(table)
    for name, text in _facts(job, result).items():
        out.print(f"[bold]{name:<12}[/bold] {escape(text)}", soft_wrap=True)
    if json_file is not None:
        document = json.loads(result.to_json()) | {"job": job.name, "namespace": job.namespace}
        json_file.write_text(json.dumps(document, indent=2) + "\n")


def _facts(job: JobSpec, result: Result) -> dict[str, str]:
    gate = "passed" if result.gate_passed else f"failed: {result.gate_message}"
    return {
        "base model": job.spec.base_model,
        "data": result.data,
        "training": f"{result.total_steps or 0} steps in {result.train_seconds or 0:.1f} s,"
        f" final loss {_number(result.final_loss)}",
        "evaluated": f"{result.num_evaluated} held-out rows; gate {gate}",
        "digest": result.digest,
        "artifact": result.uri,
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
