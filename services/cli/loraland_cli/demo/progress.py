"""A job's live progress, read from its status: a bar on a terminal, plain lines elsewhere."""

import time
from typing import Any, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loraland_cli.console import out

_LINE_EVERY_S = 10.0


class JobProgress:
    """Shows step, loss, tokens a second and the time to go."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("  {task.fields[phase]:<14}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            console=out,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1, phase="waiting", numbers="")
        self._last_line = ""
        self._last_key: tuple[str, int] = ("", -1)
        self._last_at = 0.0

    def __enter__(self) -> Self:
        if out.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if out.is_terminal:
            self._bar.stop()

    def show(self, status: dict[str, Any]) -> None:
        progress = status.get("progress") or {}
        phase = str(progress.get("phase") or status.get("phase") or "waiting")
        step, total = int(progress.get("step") or 0), int(progress.get("totalSteps") or 0)
        numbers = describe(progress)
        if out.is_terminal:
            self._bar.update(
                self._task, completed=step, total=max(total, 1), phase=phase, numbers=numbers
            )
        else:
            self._print_line(phase, step, total, numbers)

    def _print_line(self, phase: str, step: int, total: int, numbers: str) -> None:
        now = time.monotonic()
        is_new_phase = phase != self._last_key[0]
        is_due = step != self._last_key[1] and now - self._last_at >= _LINE_EVERY_S
        if not is_new_phase and not is_due:
            return
        steps = f"step {step}/{total}" if total else ""
        out.print(f"  {phase:<14} {steps:<12} {numbers}".rstrip(), markup=False)
        self._last_key, self._last_at = (phase, step), now


def describe(progress: dict[str, Any]) -> str:
    """Return loss, speed and time to go, as far as the status tells them."""
    parts = []
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']}")
    if progress.get("tokensPerSecond") is not None:
        parts.append(f"{progress['tokensPerSecond']} tokens/s")
    if progress.get("etaSeconds") is not None:
        parts.append(f"ETA {progress['etaSeconds']} s")
    return "  ".join(parts)
