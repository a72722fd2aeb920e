"""Runs other systems' scripts on the same work, where their environments exist.

A script takes ``BASE ADAPTERS CONCURRENCY NUM_ADAPTERS IN OUT`` and prints one JSON line with
``system`` and ``tok_s``, generated tokens a second of each repetition.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from workload import Workload

LIMIT_S = 900
# What makes a system fastest on a CPU, where its script leaves a choice.
_OPTIONS = {"peft": ["float32"]}


def run(
    scripts: Path, base: Path, adapters: Path, workload: Workload, pythons: dict[str, str]
) -> list[dict[str, Any]]:
    """Return what each ``bench_NAME.py`` measured, or why it did not."""
    known = {"peft": sys.executable} | pythons
    results = []
    for script in sorted(scripts.glob("bench_*.py")):
        name = script.stem.removeprefix("bench_")
        if name not in known:
            results.append({"system": name, "skipped": f"give --peer-python {name}=PYTHON"})
            continue
        numbers = [workload.concurrency, workload.num_adapters]
        numbers += [workload.input_tokens, workload.output_tokens]
        command = [known[name], str(script), str(base), str(adapters), *map(str, numbers)]
        command += _OPTIONS.get(name, [])
        results.append({"system": name} | _run(command))
    return results


def _run(command: list[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, check=True, env=_environment()
        )
    except (subprocess.SubprocessError, OSError) as error:
        return {"skipped": f"failed: {(getattr(error, 'stderr', '') or str(error))[-500:]}"}
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{"))
    result: dict[str, Any] = json.loads(line)
    return result | {"output_tokens_per_s": statistics.median(result["tok_s"])}


def _environment() -> dict[str, str]:
    """Without our own import paths: a peer has an environment of its own."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
