"""Training: the same seed gives the same adapter, also when the pod was interrupted."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from fake_store import FakeStore
from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.resources.finetunejob import LoraSpec, TrainingSpec
from loraland_models.weights import Precision
from loraland_trainer import loop, model
from loraland_trainer.callbacks import Reporter
from loraland_trainer.checkpoints import Checkpoints
from loraland_trainer.examples import Example
from loraland_trainer.progress import Board
from loraland_trainer.steps import StepCollator
from loraland_trainer.termination import Terminated, Terminator
from transformers import TrainerControl, TrainerState, TrainingArguments

PAD = 258
FLOAT32 = Precision(dtype="float32", quantization="none")
EXAMPLES = [
    Example(prompt=[1, 2, 3], completion=[4, 5], reference=""),
    Example(prompt=[6], completion=[7, 8, 9], reference=""),
    Example(prompt=list(range(10, 20)), completion=[20], reference=""),
    Example(prompt=[21, 22], completion=[23, 24], reference=""),
]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(TrainingSpec(max_steps=7), 7, id="steps"),
        pytest.param(
            TrainingSpec(epochs=2, batch_size=8, gradient_accumulation=1), 26, id="epochs"
        ),
        pytest.param(
            TrainingSpec(batch_size=4, gradient_accumulation=4), 21, id="three-by-default"
        ),
    ],
)
def test_steps_are_counted(spec: TrainingSpec, expected: int) -> None:
    """A hundred rows, by steps or by epochs."""
    assert expected == loop.count_steps(spec, 100)


class StopAt(Terminator):
    """A request to stop that comes while a certain step runs."""

    def __init__(self, board: Board, step: int) -> None:
        self._board = board
        self._step = step
        super().__init__()

    @property
    def requested(self) -> bool:
        return self._board.progress.step >= self._step

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def train(
    folder: Path, *, board: Board | None = None, stop_at: int = 99, store: FakeStore | None = None
) -> Any:
    """Run six steps, with dropout so that the random generators matter."""
    board = board or Board()
    checkpoints = Checkpoints(store or FakeStore(), "uid", keep_last=1, work_dir=folder / "c")
    transformers.set_seed(3)
    tuned = model.attach_adapter(
        tiny_models.build_llama(), LoraSpec(rank=4, alpha=8, dropout="0.3")
    )
    outcome = loop.train(
        tuned,
        EXAMPLES,
        TrainingSpec(
            max_steps=6, batch_size=1, gradient_accumulation=2, learning_rate="0.05", seed=3
        ),
        lora=LoraSpec(),
        precision=FLOAT32,
        pad_token_id=PAD,
        work_dir=folder,
        board=board,
        checkpoints=checkpoints,
        checkpoint_every_steps=2,
        terminator=StopAt(board, stop_at),
    )
    checkpoints.wait()
    return outcome, {n: p.clone() for n, p in tuned.named_parameters() if p.requires_grad}


def test_same_seed_gives_the_same_adapter(tmp_path: Path) -> None:
    """Two runs: every loss and every weight are equal, bit by bit."""
    first, first_weights = train(tmp_path / "first")
    second, second_weights = train(tmp_path / "second")

    assert first.losses == second.losses
    assert all(torch.equal(w, second_weights[n]) for n, w in first_weights.items())


def test_training_learns_and_is_seen(tmp_path: Path) -> None:
    """The loss falls, and the board ends at the last step with a speed."""
    board = Board()

    outcome, _ = train(tmp_path, board=board)

    assert (board.progress.step, board.progress.total_steps) == (6, 6)
    assert len(outcome.losses) == 6
    assert sum(outcome.losses[-2:]) < sum(outcome.losses[:2])
    assert outcome.final_loss == outcome.losses[-1]
    assert (board.progress.tokens_per_second or 0) > 0


@pytest.mark.parametrize("stop_at", [1, 3, 6], ids=["first-step", "between", "last-step"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, stop_at: int) -> None:
    """SIGTERM, a checkpoint, a new pod: every loss and every weight are equal, bit by bit."""
    whole, whole_weights = train(tmp_path / "whole")
    board, store = Board(), FakeStore()

    with pytest.raises(Terminated):
        train(tmp_path / "first", board=board, stop_at=stop_at, store=store)
    resumed, resumed_weights = train(tmp_path / "second", store=store)

    assert stop_at == board.progress.step
    assert whole.losses == resumed.losses
    assert all(torch.equal(w, resumed_weights[n]) for n, w in whole_weights.items())


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    """Six steps with one every two, of which one is kept; the end of the run needs none."""
    store = FakeStore()

    train(tmp_path, store=store)

    folders = {key.split("/")[3] for key in store.objects}
    assert folders == {"step-00000004"}


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    """The one before it is taken, and the run ends the same."""
    whole, _ = train(tmp_path / "whole")
    store = FakeStore()
    with pytest.raises(Terminated):
        train(tmp_path / "first", stop_at=3, store=store)
    before = dict(store.objects)
    with pytest.raises(Terminated):
        train(tmp_path / "second", stop_at=5, store=store)
    store.objects |= before
    store.objects["jobs/uid/checkpoints/step-00000005/state.safetensors"] = b"damaged"

    resumed, _ = train(tmp_path / "third", store=store)

    assert whole.losses == resumed.losses


def test_a_store_that_is_away_costs_the_checkpoint_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on without, and the log says so."""
    store = FakeStore()
    monkeypatch.setattr(store, "upload", fail)

    outcome, _ = train(tmp_path, store=store)

    assert len(outcome.losses) == 6
    assert "no checkpoint of step 2: the store is away" in caplog.text


def fail(*_: Any) -> None:
    raise Unavailable("the store is away")


def test_nothing_pickled_is_stored(tmp_path: Path) -> None:
    """Checkpoints are safetensors and JSON."""
    store = FakeStore()
    with pytest.raises(Terminated):
        train(tmp_path, stop_at=1, store=store)

    endings = {key.rsplit(".", 1)[1] for key in store.objects}

    assert endings == {"json", "safetensors", "md"}


def test_a_loss_that_is_no_number_ends_the_job(tmp_path: Path) -> None:
    """Weights that are not finite are never uploaded; the advice names the field."""
    llama = tiny_models.build_llama()
    llama.get_output_embeddings().weight.data.fill_(float("nan"))
    tuned = model.attach_adapter(llama, LoraSpec())

    with pytest.raises(InvalidInput, match="the loss is nan at step 1; lower") as caught:
        loop.train(
            tuned,
            EXAMPLES,
            TrainingSpec(max_steps=2),
            lora=LoraSpec(),
            precision=FLOAT32,
            pad_token_id=PAD,
            work_dir=tmp_path,
            board=Board(),
            checkpoints=Checkpoints(FakeStore(), "uid", keep_last=1, work_dir=tmp_path),
            checkpoint_every_steps=1,
            terminator=Terminator(),
        )

    assert caught.value.reason == "LossNotFinite"


def test_a_gradient_that_is_no_number_ends_the_job() -> None:
    """Of the last step there is no later loss that would tell."""
    reporter = Reporter(Board(), StepCollator())
    state = TrainerState(global_step=6, max_steps=6)
    logs = {"loss": 1.0, "grad_norm": float("inf")}

    with pytest.raises(InvalidInput, match="the gradient's norm is inf at step 6; lower") as caught:
        reporter.on_log(TrainingArguments(use_cpu=True), state, TrainerControl(), logs=logs)

    assert caught.value.reason == "LossNotFinite"


def test_unknown_target_modules_are_named_with_the_present() -> None:
    """A typo in targetModules costs no training run."""
    with pytest.raises(InvalidInput, match="no linear module is named 'q_prj'; present: down"):
        model.attach_adapter(tiny_models.build_llama(), LoraSpec(target_modules=["q_prj"]))
