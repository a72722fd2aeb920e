"""Several processes of one job, on one node or more: who is who, and how a pod starts its own.

torchrun's launcher does it, in this process, so that the exit code of the process that failed first
is the pod's own.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from loraland_core.errors import InvalidInput
from loraland_core.jobspec import ExitCode
from torch import distributed

JOIN_TIMEOUT_S = 900
# Within the pod's grace period, which is 120 s.
SHUTDOWN_TIMEOUT_S = 110


@dataclass(frozen=True)
class Group:
    """The processes that train one adapter together."""

    num_nodes: int = 1
    num_proc_per_node: int = 1
    node_rank: int = 0
    master_address: str = "127.0.0.1"
    master_port: int = 29500

    @property
    def size(self) -> int:
        return self.num_nodes * self.num_proc_per_node


def read(environment: Mapping[str, str]) -> Group:
    """Return the group that the operator's variables describe; one process without them."""
    return Group(
        num_nodes=_number(environment, "LORALAND_NUM_NODES", 1),
        num_proc_per_node=_number(environment, "LORALAND_NUM_PROC_PER_NODE", 1),
        # Kubernetes sets it in the pods of an Indexed Job.
        node_rank=_number(environment, "JOB_COMPLETION_INDEX", 0),
        master_address=environment.get("MASTER_ADDR") or "127.0.0.1",
        master_port=_number(environment, "MASTER_PORT", 29500),
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal():
        raise InvalidInput(f"is {text!r}; expected a number", field=name, reason="InvalidJob")
    return int(text)


def is_member() -> bool:
    """Whether this process was started as one of a group."""
    return "RANK" in os.environ


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def any_of(flag: bool) -> bool:
    """Return whether the flag is set in any process; all of them must ask."""
    return bool(largest(int(flag)))


def is_joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def join() -> None:
    """Meet the other processes, if there are any; Transformers finds that done."""
    if size() == 1 or is_joined():
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(local_rank())
    distributed.init_process_group(
        "nccl" if has_gpu else "gloo", timeout=timedelta(seconds=JOIN_TIMEOUT_S)
    )


def _device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def summed(*numbers: float) -> list[float]:
    """Return each number's sum over the processes; all of them must ask."""
    if not is_joined():
        return list(numbers)
    found = torch.tensor(numbers, dtype=torch.float64, device=_device())
    distributed.all_reduce(found)
    return [float(number) for number in found]


def largest(number: int) -> int:
    """Return the largest of the processes' numbers; all of them must ask."""
    if not is_joined():
        return number
    found = torch.tensor([number], device=_device())
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return int(found.item())


def sum_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Give every process the sum of all gradients, in one exchange; all must ask.

    An adapter's gradients are small. Exchanged once a step, each process may cut its rows as its
    own memory bids: how many backward passes that takes is nobody else's matter.
    """
    if not is_joined() or size() == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(joined)
    parts = torch.split(joined, [gradient.numel() for gradient in gradients])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def gathered(value: Any) -> list[Any]:
    """Return what every process has, in their order; all of them must ask."""
    if not is_joined():
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def launch(group: Group) -> int:
    """Start this node's processes and wait for them; return the exit code of the pod."""
    # Imported here: a member does not need it.
    from torch.distributed.elastic.multiprocessing import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    config = LaunchConfig(
        min_nodes=group.num_nodes,
        max_nodes=group.num_nodes,
        nproc_per_node=group.num_proc_per_node,
        rdzv_backend="static",
        rdzv_endpoint=f"{group.master_address}:{group.master_port}",
        rdzv_configs={"rank": group.node_rank, "timeout": JOIN_TIMEOUT_S},
        run_id="loraland",
        max_restarts=0,
        # Its own 30 s would end an upload that the pod's grace period has time for.
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "loraland_trainer")
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # Killed by a signal: what a shell would say.
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException:
        return int(ExitCode.TERMINATED)
    return int(ExitCode.DONE)
