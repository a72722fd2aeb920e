"""The programs of a stack."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from loraland_core.errors import InvalidInput
from loraland_local import controlplane, stations
from loraland_local.addresses import Block
from loraland_local.board import Board
from loraland_local.credentials import Credentials
from loraland_local.kubelet import images
from loraland_local.layout import Layout, StackRecord, Station

PORTS = stations.Ports(
    api=6443, store=9000, redis=6379, etcd=2379, etcd_peer=2380, grpc=8500, inference_metrics=9400
)
SECRETS = Credentials(
    api_token="t",
    inference_token="i",
    store_access_key="a",
    store_secret_key="s",
    operator_password="o",
    replica_password="r",
)


@pytest.fixture
def plan(tmp_path: Path) -> stations.Plan:
    return stations.Plan(
        layout=Layout(tmp_path),
        block=Block(host="127.77.0.1", pod_cidr="127.77.0.0/16"),
        ports=PORTS,
        credentials=SECRETS,
        version="1",
    )


def test_images_are_what_the_kubelet_reads(plan: stations.Plan) -> None:
    """The kubelet finds each part's program under the image's name, whatever registry and tag."""
    stations.write_files(plan)
    known = images.parse(plan.layout.images.read_text())
    found = known.find("ghcr.io/somebody/loraland/trainer:0.1.0")
    assert found is not None

    assert (found.entrypoint[-1], found.environment["OMP_WAIT_POLICY"]) == (
        "loraland_trainer",
        "PASSIVE",
    )


def test_commands_carry_no_secrets(plan: stations.Plan) -> None:
    """Anybody on the machine can read a command line."""
    programs = stations.build_foundation(plan) + stations.build_nodes(plan)
    spoken = " ".join(part for program in programs for part in program.command).split()

    assert [secret for secret in dataclasses.astuple(SECRETS) if secret in spoken] == []


def test_kubelet_gets_no_pod_network_where_there_is_none(plan: stations.Plan) -> None:
    """On a single address the kubelet shares it among pods."""
    shared = dataclasses.replace(plan, block=Block(host="127.0.0.1", pod_cidr=""))
    commands = [stations.build_nodes(p)[1].command for p in (plan, shared)]

    assert ["--pod-cidr" in command for command in commands] == [True, False]


def test_real_control_plane_takes_the_embedded_ones_place(
    plan: stations.Plan, tmp_path: Path
) -> None:
    """With the binaries there are an etcd and an API server, and a kubeconfig for them."""
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).touch()
    real = dataclasses.replace(plan, assets=str(tmp_path))
    stations.write_files(real)
    names = [program.name for program in stations.build_foundation(real)]

    assert (names, (real.layout.api / "kubeconfig").exists()) == (
        ["object-store", "redis", "etcd", "api"],
        True,
    )


def test_missing_binaries_of_a_control_plane_are_named(tmp_path: Path) -> None:
    """A folder without etcd is named with its variable."""
    (tmp_path / "kube-apiserver").touch()
    with pytest.raises(InvalidInput, match="has no etcd; name envtest"):
        controlplane.find_binaries(str(tmp_path))


@pytest.fixture
def board(tmp_path: Path) -> Board:
    record = StackRecord(
        state="starting", pid=1, base_model="m", grpc_port=1, stations=[Station(name="api")]
    )
    return Board(Layout(tmp_path), record)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param(["starting", "ready"], "ready", id="ready"),
        pytest.param(["starting", "ready", "stopped"], "stopped", id="stopped"),
        pytest.param(["starting", "failed", "stopped"], "failed", id="failure-stays"),
    ],
)
def test_board_shows_what_people_should_see(
    board: Board, tmp_path: Path, steps: list[str], expected: str
) -> None:
    """The record on disk follows the stations; a failure is not covered up by the end."""
    for step in steps:
        arguments: list[Any] = ["api", "it fell"] if step == "failed" else ["api"]
        getattr(board, step)(*arguments)
    record = Layout(tmp_path).read_record()
    assert record is not None

    assert record.stations[0].state == expected


def test_every_station_is_explained() -> None:
    """The page about the laptop leaves no station out."""
    page = (Path(__file__).parents[3] / "docs" / "laptop.md").read_text()

    assert [name for name in stations.station_names("") if f"`{name}`" not in page] == []
