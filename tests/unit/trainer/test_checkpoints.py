"""Checkpoints reach the store beside the training, manifest last, and no more than so many stay."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_store import FakeStore
from loraland_core.errors import InvalidInput
from loraland_trainer.checkpoints import Checkpoints, random_state

LIMIT_S = 60


class State:
    """What of Transformers' state a checkpoint needs."""

    def __init__(self, step: int) -> None:
        self.global_step = step

    def save_to_json(self, path: str) -> None:
        Path(path).write_text(f'{{"global_step": {self.global_step}}}')


class Weights(torch.nn.Linear):
    def save_pretrained(self, folder: Path, **_: Any) -> None:
        (folder / "adapter_model.safetensors").write_bytes(bytes(4))


class GatedStore(FakeStore):
    """Holds uploads until it is told to let them through."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.opened = threading.Event(), threading.Event()

    def upload(self, path: Path, key: str) -> None:
        self.reached.set()
        assert self.opened.wait(LIMIT_S)
        super().upload(path, key)


def save(checkpoints: Checkpoints, step: int) -> None:
    weights = Weights(1, 1)
    optimizer = torch.optim.AdamW(weights.parameters())
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    checkpoints.save(
        model=weights,
        optimizer=optimizer,
        scheduler=scheduler,
        state=State(step),
        random_states=[random_state()],
    )


def steps_in(store: FakeStore) -> set[str]:
    return {key.split("/")[3] for key in store.objects}


def test_steps_go_on_while_a_checkpoint_uploads(tmp_path: Path) -> None:
    """What is saved meanwhile waits, the newest of it; the disk is empty at the end."""
    store = GatedStore()
    checkpoints = Checkpoints(store, "uid", keep_last=3, work_dir=tmp_path)

    save(checkpoints, 1)
    assert store.reached.wait(LIMIT_S)
    for step in (2, 3, 4):
        save(checkpoints, step)
    before = set(steps_in(store))
    store.opened.set()
    checkpoints.wait()

    assert before == set()
    assert steps_in(store) == {"step-00000001", "step-00000004"}
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_manifest_is_none(tmp_path: Path) -> None:
    """A pod that was killed in mid-upload leaves files that nobody resumes from."""
    store = FakeStore()
    first = Checkpoints(store, "uid", keep_last=3, work_dir=tmp_path / "first")
    for step in (1, 2):
        save(first, step)
        first.wait()
    del store.objects["jobs/uid/checkpoints/step-00000002/manifest.json"]

    newest = Checkpoints(store, "uid", keep_last=3, work_dir=tmp_path / "second").fetch_newest()

    assert newest is not None
    assert '"global_step": 1' in (newest / "trainer_state.json").read_text()


def test_the_result_ends_all_checkpoints(tmp_path: Path) -> None:
    """One that is on its way is waited for, or it would come after the deletion."""
    store = GatedStore()
    checkpoints = Checkpoints(store, "uid", keep_last=1, work_dir=tmp_path)
    save(checkpoints, 1)
    threading.Timer(0.05, store.opened.set).start()

    checkpoints.delete_all()

    assert store.objects == {}


def test_a_refused_upload_costs_the_checkpoint_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the reason, the training goes on."""
    store = FakeStore()

    def refuse(*_: Any) -> None:
        raise InvalidInput("may not be written", field="bucket")

    monkeypatch.setattr(store, "upload", refuse)
    checkpoints = Checkpoints(store, "uid", keep_last=1, work_dir=tmp_path)

    with caplog.at_level(logging.WARNING):
        save(checkpoints, 7)
        checkpoints.wait()

    assert "no checkpoint of step 7: bucket: may not be written" in caplog.text
    assert list(tmp_path.iterdir()) == []
