"""Data sets of a Hub: a small one of the tests' own, asked by the real clients over HTTP."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_server
import pytest
import servers
import tiny_base
import trainer_jobs
from hub_server import Fault, Hub, Repository
from huggingface_hub import get_session
from loraland_core import artifacts, jobspec
from loraland_core.errors import InvalidInput
from loraland_core.resources.dataset import DatasetSpec, HuggingFaceDataset
from loraland_core.store import Store, StoreConfig
from loraland_trainer import dataset, hub
from loraland_trainer.dataset import SourceUnavailable

CARD = b"""---
configs:
- config_name: long
  default: true
  data_files:
  - {split: train, path: long/train.jsonl}
  - {split: test, path: long/test.jsonl}
- config_name: short
  data_files:
  - {split: train, path: short/train.jsonl}
---
"""


def lines(*words: str) -> bytes:
    rows = [{"word": word, "upper": word.upper(), "more": 1} for word in words]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


FILES = {
    "README.md": CARD,
    "long/train.jsonl": lines("cat", "dog", "owl"),
    "long/test.jsonl": lines("bee"),
    "short/train.jsonl": lines("fox"),
}
EARLIER = {"train.jsonl": lines("ant", "elk")}


@pytest.fixture
def the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with an open, a gated and a private data set, and a script; nothing is cached."""
    monkeypatch.setattr(hub, "FIRST_DELAY_S", 0.01)
    with hub_server.running() as found:
        found.add_dataset("zoo/words", Repository({"main": FILES, "v1": EARLIER}))
        found.add_dataset("zoo/gated", Repository({"main": EARLIER}, gated=True))
        found.add_dataset("zoo/private", Repository({"main": EARLIER}, private=True))
        found.add_dataset("zoo/script", {"script.py": b"open('trace', 'w')"})
        hub_server.point_here(found, monkeypatch, tmp_path / "cache")
        yield found


def load(
    folder: Path,
    repo: str = "zoo/words",
    *,
    token: str | None = None,
    split: dict[str, str] | None = None,
    **source: str,
) -> dataset.Rows:
    spec = DatasetSpec.model_validate(
        trainer_jobs.DATASET
        | {"inline": None, "huggingFace": {"repo": repo, **source}, "split": split or {}}
    )
    return dataset.load_rows(
        spec,
        config=trainer_jobs.build_config(folder, hub_token=token),
        store=StoreConfig(bucket="unused"),
        seed=0,
        max_evaluation=64,
    )


def words(rows: dataset.Rows) -> tuple[list[str], list[str]]:
    return [row["word"] for row in rows.train], [row["word"] for row in rows.evaluation]


def test_splits_become_rows(the_hub: Hub, tmp_path: Path) -> None:
    """Columns that no template names are not kept; the commit is."""
    rows = load(tmp_path, split={"evaluation": "test"})

    commit, _ = the_hub.find("datasets", "zoo/words").find("main")  # type: ignore[union-attr, misc]
    assert words(rows) == (["cat", "dog", "owl"], ["bee"])
    assert rows.train[0] == {"word": "cat", "upper": "CAT"}
    assert rows.origin == f"zoo/words@{commit[:12]}"


def test_configuration_and_revision_are_those_of_the_job(the_hub: Hub, tmp_path: Path) -> None:
    """One configuration of several, and a tag instead of the main branch."""
    short = load(tmp_path, config="short", split={"evaluation": "train"})
    earlier = load(tmp_path, revision="v1", split={"evaluation": "train"})

    assert words(short)[0] == ["fox"]
    assert words(earlier)[0] == ["ant", "elk"]


@pytest.mark.parametrize("repo", ["zoo/gated", "zoo/private"])
def test_a_token_opens_what_is_not_public(the_hub: Hub, tmp_path: Path, repo: str) -> None:
    """It goes to the Hub with every request."""
    rows = load(tmp_path, repo, token=hub_server.TOKEN, split={"evaluation": "train"})

    asked = [r.authorization for r in the_hub.requests if repo in r.path]
    assert words(rows)[0] == ["ant", "elk"]
    assert set(asked) == {f"Bearer {hub_server.TOKEN}"}


REFUSALS = [
    pytest.param("zoo/absent", {}, "DatasetNotFound", "knows no data set zoo/absent", id="absent"),
    pytest.param("zoo/private", {}, "DatasetNotFound", "or the token may not read it", id="hidden"),
    pytest.param(
        "zoo/words",
        {"revision": "v9"},
        "DatasetNotFound",
        "spec.dataset.huggingFace.revision: zoo/words has no revision 'v9'",
        id="revision",
    ),
    pytest.param(
        "zoo/words", {"config": "huge"}, "DatasetNotFound", "'huge' not found", id="configuration"
    ),
    pytest.param(
        "zoo/words", {"split": {"train": "dev"}}, "DatasetNotFound", "Unknown split", id="split"
    ),
    pytest.param("zoo/gated", {}, "DatasetGated", "accept its terms at http", id="gated-401"),
    pytest.param(
        "zoo/gated",
        {"token": hub_server.STRANGERS_TOKEN},
        "DatasetGated",
        "the account of the token has no access",
        id="gated-403",
    ),
    pytest.param(
        "zoo/words", {"token": "hf_expired"}, "DatasetNotFound", "refuses the token", id="token"
    ),
    pytest.param("zoo/script", {}, "DatasetNotFound", "scripts are no longer", id="script"),
]


@pytest.mark.parametrize(("repo", "options", "reason", "part"), REFUSALS)
def test_what_the_hub_refuses_is_said_once_and_for_all(
    *,
    the_hub: Hub,
    tmp_path: Path,
    repo: str,
    options: dict[str, Any],
    reason: str,
    part: str,
) -> None:
    """The error says what to do, shows no token, and is not tried again."""
    with pytest.raises(InvalidInput) as caught:
        load(tmp_path, repo, **options)

    assert reason == caught.value.reason
    assert part in str(caught.value)
    assert "hf_" not in str(caught.value)
    assert sum(r.path == f"/api/datasets/{repo}" for r in the_hub.requests) <= 1


def test_a_busy_hub_is_asked_again_when_it_says(the_hub: Hub, tmp_path: Path) -> None:
    """429 with Retry-After, 503 without: the third answer counts."""
    the_hub.faults += [Fault(429, headers={"Retry-After": "1"}), Fault(503)]

    rows = load(tmp_path, split={"evaluation": "test"})

    statuses = [r.status for r in the_hub.requests if "/api/datasets/zoo/words" in r.path][:3]
    assert statuses == [429, 503, 200]
    assert words(rows)[1] == ["bee"]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(503, times=999), id="overloaded"),
        pytest.param(Fault(429, times=999, headers={"Retry-After": "3600"}), id="an-hour"),
    ],
)
def test_a_hub_that_stays_busy_is_left_to_the_next_attempt(
    the_hub: Hub, tmp_path: Path, fault: Fault
) -> None:
    """The pod ends, not the job; nobody waits an hour in a pod that holds a GPU."""
    the_hub.faults.append(fault)

    with pytest.raises(SourceUnavailable, match="does not answer for zoo/words@main"):
        load(tmp_path)

    assert len(the_hub.requests) <= hub.MAX_ATTEMPTS


def test_a_hub_that_is_away_is_worth_another_try(the_hub: Hub, tmp_path: Path) -> None:
    """No network ends the pod, not the job."""
    del the_hub
    with pytest.MonkeyPatch.context() as patch:
        away = Hub(f"http://127.0.0.1:{servers.free_port()}")
        hub_server.point_here(away, patch, tmp_path / "other")

        with pytest.raises(SourceUnavailable, match="does not answer for zoo/words@main"):
            load(tmp_path)


@pytest.mark.parametrize(
    "repo", ["/etc", "../secrets", "a/b/c", "https://host/x"], ids=["root", "up", "deep", "url"]
)
def test_only_the_hubs_names_are_looked_for(repo: str) -> None:
    """The library would take a path as well; a job must not read the pod's files."""
    with pytest.raises(InvalidInput, match="is no data set id"):
        hub.open_repository(HuggingFaceDataset(repo=repo), token=None)


def run_pod(root: Path, job: jobspec.JobSpec, **variables: str) -> tuple[int, str]:
    """Run a pod of its own process; return exit code and termination message."""
    (root / "etc" / "loraland").mkdir(parents=True)
    (root / "etc" / "loraland" / "job.json").write_text(job.to_json())
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "HF_HOME": str(root / "huggingface"),
        "LORALAND_ROOT": str(root),
        "LORALAND_TERMINATION_LOG": str(root / "termination-log"),
        "LORALAND_CACHE_DIR": str(root / "cache"),
        "LORALAND_PROGRESS_PORT": str(servers.free_port()),
        "POD_IP": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": ":".join(sys.path),
        "AWS_ACCESS_KEY_ID": servers.S3_CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": servers.S3_CREDENTIALS["aws_secret_access_key"],
    }
    ended = subprocess.run(
        [sys.executable, "-m", "loraland_trainer"],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    log = root / "termination-log"
    said = log.read_text() if log.exists() else ""
    return ended.returncode, f"{said}\n{ended.stderr}"


def hub_job(store: StoreConfig, repo: str, folder: Path | None = None) -> jobspec.JobSpec:
    rows = trainer_jobs.DATASET | {"inline": None, "huggingFace": {"repo": repo}}
    return trainer_jobs.build_job(store, base_folder=folder, dataset=rows)


@pytest.mark.slow
def test_a_pod_finds_its_hub_by_the_environment(
    the_hub: Hub, store: Store, store_config: StoreConfig, tmp_path: Path
) -> None:
    """HF_ENDPOINT and HF_TOKEN are enough; the pod says what it read, and never the token."""
    base = tiny_base.write_base_model(tmp_path / "base")
    job = hub_job(store_config, "zoo/gated", base)

    exit_code, said = run_pod(
        tmp_path / "pod", job, HF_ENDPOINT=the_hub.url, HF_TOKEN=hub_server.TOKEN
    )

    assert exit_code == 0, said
    assert store.exists(artifacts.result_key(job.uid))
    assert "data set zoo/gated@main is at commit" in said
    assert hub_server.TOKEN not in said


@pytest.mark.slow
def test_a_pod_says_which_data_set_is_gated(
    the_hub: Hub, store: Store, store_config: StoreConfig, tmp_path: Path
) -> None:
    """Exit code 42: no retry will open it."""
    del store
    exit_code, said = run_pod(
        tmp_path / "pod", hub_job(store_config, "zoo/gated"), HF_ENDPOINT=the_hub.url
    )

    assert exit_code == jobspec.ExitCode.INVALID_JOB, said
    assert '"reason": "DatasetGated"' in said


def test_every_request_to_a_hub_has_an_end(tmp_path: Path, the_hub: Hub) -> None:
    """Also those that the libraries make on their own, without a limit."""
    get_session().timeout = None

    load(tmp_path)

    assert get_session().timeout.read == hub.TIMEOUT_S
