"""The command line of ``serving``, and the pieces of work that docs/performance.md tabulates."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        "16 requests, 16 adapters",
        "--concurrency 16 --adapters 16",
        ("int8", "float32", "bf16"),
        is_for_service=True,
        is_for_peers=True,
    ),
    Piece(
        "16 requests, base",
        "--concurrency 16 --adapters 0",
        ("int8", "float32", "bf16"),
        is_for_peers=True,
    ),
    Piece("8 requests, 8 adapters", "--concurrency 8 --adapters 8", is_for_peers=True),
    Piece("32 requests, 32 adapters", "--concurrency 32 --adapters 32"),
    Piece(
        "16 requests, 16 adapters, ranks 8-64", "--concurrency 16 --adapters 16 --ranks 8 16 32 64"
    ),
    Piece("1 request, 1 adapter", "--concurrency 1 --adapters 1"),
    Piece(
        "512-token prompts, 1 adapter",
        "--concurrency 1 --requests 4 --adapters 1 --input-tokens 512 --output-tokens 1",
    ),
    Piece(
        "64 adapters, 64 slots, skewed",
        "--concurrency 16 --requests 128 --adapters 64 --distribution skewed --output-tokens 32",
    ),
    Piece(
        "64 adapters, 8 slots, skewed",
        "--concurrency 16 --requests 128 --adapters 64 --distribution skewed --output-tokens 32"
        " --slots 8",
    ),
    Piece(
        "open loop, 4 requests/s, 16 adapters, skewed",
        "--concurrency 16 --requests 48 --rate 4 --burstiness 2 --adapters 16 --distribution skewed",
        is_for_service=True,
    ),
)


def run(arguments: argparse.Namespace, script: Path) -> list[dict[str, Any]]:
    """Measure every piece at each of its precisions, each in a process of its own."""
    documents = []
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
                print(f"{piece.name}, {precision} …", file=sys.stderr)
                subprocess.run(command, check=True, timeout=LIMIT_S, env=_environment(arguments))
                documents.append(json.loads(target.read_text()))
    return documents


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


def parse_arguments(text: str, precisions: list[str], base_model: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument("--engine", action="store_true", help="the engine as a library")
    what.add_argument(
        "--grpc", action="store_true", help="the service; starts one unless --address"
    )
    what.add_argument("--address", help="host:port of a replica that runs already")
    what.add_argument("--token", default="", help="its bearer token")
    what.add_argument("--adapter-names", nargs="*", default=[], help="its adapters, namespace/name")
    what.add_argument("--peers", type=Path, help="folder of bench_NAME.py scripts of other systems")
    what.add_argument("--peer-python", action="append", default=[], metavar="NAME=PYTHON")
    what.add_argument("--suite", action="store_true", help="all lines of docs/performance.md")
    what.add_argument("--only", default="", help="the lines of the suite whose name has this text")
    model = parser.add_argument_group("model")
    model.add_argument("--base-model", default=base_model, help="folder or name")
    model.add_argument("--catalogue", type=Path, help="the file that knows the name")
    model.add_argument("--adapters-dir", type=Path, help="PEFT folders; missing ones are made")
    model.add_argument("--precision", choices=precisions, default="int8")
    model.add_argument("--slots", type=int, help="default: one for each adapter")
    model.add_argument("--ranks", type=int, nargs="+", default=[16], help="of adapters it makes")
    model.add_argument("--max-running", type=int, help="default: the concurrency")
    model.add_argument("--step-tokens", type=int, default=256)
    model.add_argument("--no-prefix-cache", action="store_true", help="compute every prompt")
    model.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))
    work = parser.add_argument_group("work")
    work.add_argument("--concurrency", type=int, default=16)
    work.add_argument("--requests", type=int, help="default: the concurrency")
    work.add_argument("--adapters", type=int, default=16, help="0 is the base model")
    work.add_argument(
        "--distribution", choices=("distinct", "uniform", "skewed"), default="distinct"
    )
    work.add_argument("--skew", type=float, default=0.3, help="exponent of the power law")
    work.add_argument("--input-tokens", type=int, default=64)
    work.add_argument("--output-tokens", type=int, default=64)
    work.add_argument("--rate", type=float, help="requests a second; default: a closed loop")
    work.add_argument("--burstiness", type=float, default=1.0, help="1 is Poisson")
    work.add_argument("--seed", type=int, default=0)
    work.add_argument("--repeats", type=int, default=3)
    results = parser.add_argument_group("results")
    results.add_argument("--slo-ttft-s", type=float, default=1.0)
    results.add_argument("--slo-tpot-s", type=float, default=0.1)
    results.add_argument("--json", type=Path, help="file for the numbers")
    results.add_argument("--plot", type=Path, help="PNG file")
    results.add_argument("--name", help="what the line is called")
    results.add_argument("--quiet", action="store_true", help="print no table")
    arguments = parser.parse_args()
    if not (arguments.engine or arguments.grpc or arguments.peers):
        parser.error("give --engine, --grpc or both")
    if arguments.address and len(arguments.adapter_names) < arguments.adapters:
        parser.error(f"--address serves {arguments.adapters} adapters: name them, --adapter-names")
    return arguments
