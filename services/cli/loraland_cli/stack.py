"""The commands around the stack: up, down, status, logs, kubectl."""

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from loraland_core.errors import LoraLandError
from loraland_local import kubectl as kubectl_binary
from loraland_local import layout, ownership, processes, stations
from loraland_local import stack as stacks
from loraland_local.layout import Layout, StackRecord
from loraland_local.options import StackOptions
from rich.markup import escape
from rich.table import Table

from loraland_cli.console import EXIT_FAILURE, Failure, err, out
from loraland_cli.progress import StationPrinter
from loraland_cli.signals import interruptible

_FOLLOW_POLL_S = 0.3
_PODS_STATIONS = (stations.OPERATOR, stations.INFERENCE)


def up(state: Path | None, *, api_port: int, grpc_port: int) -> None:
    place = layout.locate(state)
    with interruptible() as interrupts:
        try:
            record = start(
                place, StackOptions(state=place.state, api_port=api_port, grpc_port=grpc_port)
            )
        except BaseException:
            interrupts.ignore()
            # A stack that another command has started is not this one's to stop.
            stacks.stop(place, is_own=True)
            raise
    _print_next_steps(place, record)


def start(place: Layout, options: StackOptions, *, is_fresh: bool = False) -> StackRecord:
    """Start the stack and print its stations as they come up; ``Failure`` says which did not."""
    printer = StationPrinter()
    process = stacks.start(place, options, is_fresh=is_fresh)
    try:
        return stacks.wait_ready(place, process, on_change=printer.show)
    except LoraLandError as error:
        record = place.read_record()
        failed = [s.name for s in record.stations if s.state == "failed"] if record else []
        where = f"station {failed[0]} failed: " if failed else ""
        log = record.failure_log if record else ""
        raise Failure(f"{where}{error} (logs: {place.logs})", log=log) from error


def down(state: Path | None, *, purge: bool) -> None:
    place = layout.locate(state)
    was_running = stacks.is_running(place)
    left = stacks.stop(place)
    if not was_running and not left:
        out.print(f"no stack runs in {place.state}")
    else:
        out.print(f"stopped the stack in {place.state}")
    if purge and place.state.exists():
        ownership.remove(place)
        kept = " except for other stacks' directories in it" if place.state.exists() else ""
        out.print(f"removed {place.state}{kept}")


def status(state: Path | None) -> None:
    place = layout.locate(state)
    record = stacks.running_record(place)
    table = Table(box=None, pad_edge=False)
    for column in ("STATION", "STATE", "PID", "ADDRESS", "RESTARTS", "DETAIL"):
        table.add_column(column)
    for station in record.stations:
        pid = str(station.pid) if station.pid and processes.is_alive(station.pid) else ""
        table.add_row(
            station.name,
            station.state,
            pid,
            station.address,
            str(station.restarts),
            escape(station.detail),
        )
    out.print(table)
    out.print(f"\nstack {record.state} in {place.state} (supervisor {record.pid})")
    if record.state != "ready":
        raise SystemExit(EXIT_FAILURE)
    _print_next_steps(place, record)


def _print_next_steps(place: Layout, record: StackRecord) -> None:
    grpc = next(s.address for s in record.stations if s.name == stations.INFERENCE)
    option = "" if place.state == layout.locate(None).state else f" --state {place.state}"
    out.print(
        f"""
  export KUBECONFIG={place.kubeconfig}
  gRPC    {grpc}
  token   {place.token.read_text().strip()}  (also in {place.token})
  S3      {record.store_url}  (files in {place.objects})

Next:
  kubectl apply -f examples/quickstart/
  kubectl get finetunejobs,adapters -w
  loraland generate{option} --adapter support-desk --field message="Where is my parcel? Order 4711."
  loraland down{option}
""",
        markup=False,
        soft_wrap=True,
    )


def logs(state: Path | None, name: str | None, *, num_lines: int, follow: bool) -> None:
    place = layout.locate(state)
    names = [s.name for s in record.stations] if (record := place.read_record()) else []
    if not names:
        raise Failure(f"there is no stack in {place.state}; start one with `loraland up`")
    if name is None:
        for station in [n for n in ("supervisor", *names) if place.log(n).exists()]:
            out.rule(station, align="left")
            out.print(_tail(place.log(station), num_lines), markup=False, soft_wrap=True)
    elif place.log(name).exists():
        out.print(_tail(place.log(name), num_lines), markup=False, soft_wrap=True)
        if follow:
            _follow(place.log(name))
    else:
        _pod_logs(place, name, num_lines=num_lines, follow=follow)


def _pod_logs(place: Layout, name: str, *, num_lines: int, follow: bool) -> None:
    stacks.running_record(place)
    namespace, _, pod = name.rpartition("/")
    if name in _PODS_STATIONS:
        from loraland_local import installation, platform  # noqa: PLC0415 (asyncio's half second)

        target = ["-n", platform.SYSTEM_NAMESPACE, "-l", installation.selector(name)]
    else:
        target = ["-n", namespace or "default", pod]
    arguments = ["logs", *target, f"--tail={num_lines}", *(["--follow"] if follow else [])]
    raise SystemExit(_run_kubectl(place, arguments))


def _tail(path: Path, num_lines: int) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return "\n".join(lines[-num_lines:])


def _follow(path: Path) -> None:
    with path.open(errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while True:
            text = file.read()
            if text:
                out.print(text, markup=False, soft_wrap=True, end="")
            else:
                time.sleep(_FOLLOW_POLL_S)


def kubectl(arguments: Sequence[str]) -> None:
    place = layout.locate(None)
    stacks.running_record(place)
    raise SystemExit(_run_kubectl(place, arguments))


def _run_kubectl(place: Layout, arguments: Sequence[str]) -> int:
    command = [kubectl_binary.path(), "--kubeconfig", str(place.kubeconfig), *arguments]
    with contextlib.ExitStack() as stack:
        child = stack.enter_context(subprocess.Popen(command))
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The terminal interrupted kubectl as well: let it say its last word.
            err.print("interrupted")
            return child.wait(10)
