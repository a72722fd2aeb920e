"""The pieces of work that docs/performance.md tabulates, each run in a process of its own."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import targets

LIMIT_S = 1800


@dataclass(frozen=True)
class Piece:
    """One line of the table: options of ``serving``, and whether the service and peers run it."""

    name: str
    options: str
    precisions: tuple[str, ...] = ("int8",)
    is_for_service: bool = False
    is_for_peers: bool = False


PIECES = (
    Piece(
        targets.MIXED,
        "--concurrency 16 --adapters 16 --peers-base",
        ("int8", "float32", "bf16"),
        is_for_service=True,
        is_for_peers=True,
    ),
    Piece(targets.EIGHT, "--concurrency 8 --adapters 8", is_for_peers=True),
    Piece(targets.MANY, "--concurrency 32 --adapters 32"),
    Piece(targets.RANKS, "--concurrency 16 --adapters 16 --ranks 8 16 32 64"),
    Piece(targets.SINGLE, "--concurrency 1 --adapters 1"),
    Piece(
        targets.PREFILL,
        "--concurrency 1 --requests 4 --adapters 1 --input-tokens 512 --output-tokens 1",
    ),
    Piece(
        targets.SLOTS,
        "--concurrency 16 --requests 96 --adapters 64 --distribution skewed --output-tokens 32"
        " --slots 8 --against resident",
        is_for_service=True,
    ),
    Piece(
        targets.UNIQUE,
        "--concurrency 16 --adapters 0 --input-tokens 256 --output-tokens 16 --against uncached",
    ),
    Piece(
        targets.SHARED,
        "--concurrency 16 --adapters 0 --input-tokens 256 --output-tokens 16 --against uncached"
        " --shared-tokens 192",
    ),
    Piece(
        targets.OPEN,
        "--concurrency 16 --requests 32 --rate 4 --burstiness 2 --adapters 16"
        " --distribution skewed --against nothing",
        is_for_service=True,
    ),
)


def run(arguments: argparse.Namespace, script: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure every piece at each of its precisions; return what failed beside the documents."""
    documents = []
    failed = []
    with tempfile.TemporaryDirectory(prefix="loraland-suite-") as name:
        folder = Path(name)
        for piece in PIECES:
            if arguments.only and arguments.only not in piece.name:
                continue
            for precision in piece.precisions:
                target = folder / "numbers.json"
                command = _command(arguments, script, piece, precision, target)
                if command is None:
                    continue
                started_s = time.monotonic()
                try:
                    subprocess.run(
                        command, check=True, timeout=LIMIT_S, env=_environment(arguments)
                    )
                    documents.append(json.loads(target.read_text()))
                # One piece that fails does not take the others' numbers with it.
                except subprocess.SubprocessError as error:
                    failed.append(f"{piece.name}, {precision}: {error}")
                spent_s = time.monotonic() - started_s
                print(f"{piece.name}, {precision}: {spent_s:.0f} s", file=sys.stderr, flush=True)
    return documents, failed


def _command(
    arguments: argparse.Namespace, script: Path, piece: Piece, precision: str, target: Path
) -> list[str] | None:
    is_first = precision == piece.precisions[0]
    command = [sys.executable, str(script), "--quiet", "--json", str(target)]
    if arguments.engine:
        command.append("--engine")
    if arguments.grpc and piece.is_for_service and is_first:
        command.append("--grpc")
    if arguments.peers and piece.is_for_peers and is_first:
        command += ["--peers", str(arguments.peers)]
        command += [part for given in arguments.peer_python for part in ("--peer-python", given)]
    if "--engine" not in command and "--grpc" not in command and "--peers" not in command:
        return None
    # Adapters are made once for all pieces; ranks of its own are a matter of the piece.
    shared = arguments.adapters_dir or target.parent / "adapters"
    if "--ranks" not in piece.options:
        command += ["--adapters-dir", str(shared)]
    command += ["--base-model", arguments.base_model, "--precision", precision]
    command += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    return [*command, "--name", piece.name, *piece.options.split()]


def _environment(arguments: argparse.Namespace) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
