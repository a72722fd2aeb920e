"""The command line of ``serving``. No I/O but argparse's own."""

import argparse
import os
from pathlib import Path


def parse(text: str, precisions: list[str], base_model: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_targets(parser.add_argument_group("what is measured"))
    _add_model(parser.add_argument_group("model"), precisions, base_model)
    _add_work(parser.add_argument_group("work"))
    _add_results(parser.add_argument_group("results"))
    arguments = parser.parse_args()
    if not (arguments.engine or arguments.grpc or arguments.peers):
        parser.error("give --engine, --grpc or both")
    if arguments.address and len(arguments.adapter_names) < arguments.adapters:
        parser.error(f"--address serves {arguments.adapters} adapters: name them, --adapter-names")
    if arguments.against in ("resident", "uncached") and not arguments.engine:
        parser.error(f"--against {arguments.against} is measured with --engine")
    return arguments


def _add_targets(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--engine", action="store_true", help="the engine as a library")
    group.add_argument(
        "--grpc", action="store_true", help="the service; starts one unless --address"
    )
    group.add_argument("--address", help="host:port of a replica that runs already")
    group.add_argument("--token", default="", help="its bearer token")
    group.add_argument(
        "--adapter-names", nargs="*", default=[], help="its adapters, namespace/name"
    )
    group.add_argument(
        "--peers", type=Path, help="folder of bench_NAME.py scripts of other systems"
    )
    group.add_argument("--peer-python", action="append", default=[], metavar="NAME=PYTHON")
    group.add_argument("--peers-base", action="store_true", help="peers without adapters, too")
    group.add_argument("--suite", action="store_true", help="all lines of docs/performance.md")
    group.add_argument("--only", default="", help="the lines of the suite whose name has this text")
    group.add_argument(
        "--against",
        choices=("base", "resident", "uncached", "nothing"),
        default="base",
        help="what takes turns with the work: the base model alone, all adapters in slots, or the"
        " same without a prefix cache",
    )


def _add_model(group: "argparse._ArgumentGroup", precisions: list[str], base_model: str) -> None:
    group.add_argument("--base-model", default=base_model, help="folder or name")
    group.add_argument("--catalogue", type=Path, help="the file that knows the name")
    group.add_argument("--adapters-dir", type=Path, help="PEFT folders; missing ones are made")
    group.add_argument("--precision", choices=precisions, default="int8")
    group.add_argument("--slots", type=int, help="default: one for each adapter")
    group.add_argument("--ranks", type=int, nargs="+", default=[16], help="of adapters it makes")
    group.add_argument("--max-running", type=int, help="default: the concurrency")
    group.add_argument("--step-tokens", type=int, default=256)
    group.add_argument("--no-prefix-cache", action="store_true", help="compute every prompt")
    group.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))


def _add_work(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--concurrency", type=int, default=16)
    group.add_argument("--requests", type=int, help="default: the concurrency")
    group.add_argument("--adapters", type=int, default=16, help="0 is the base model")
    group.add_argument(
        "--distribution", choices=("distinct", "uniform", "skewed"), default="distinct"
    )
    group.add_argument("--skew", type=float, default=0.3, help="exponent of the power law")
    group.add_argument("--input-tokens", type=int, default=64)
    group.add_argument("--output-tokens", type=int, default=64)
    group.add_argument("--shared-tokens", type=int, default=0, help="that all prompts begin with")
    group.add_argument("--rate", type=float, help="requests a second; default: a closed loop")
    group.add_argument("--burstiness", type=float, default=1.0, help="1 is Poisson")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--repeats", type=int, default=3)


def _add_results(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--slo-ttft-s", type=float, default=1.0)
    group.add_argument("--slo-tpot-s", type=float, default=0.1)
    group.add_argument("--json", type=Path, help="file for the numbers")
    group.add_argument("--markdown", type=Path, help="file for the tables, as a document has them")
    group.add_argument("--plot", type=Path, help="PNG file")
    group.add_argument("--name", help="what the line is called")
    group.add_argument("--quiet", action="store_true", help="print no table")
