"""Training: what a batch holds, what the loss is, and that the same seed gives the same adapter."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from loraland_core.errors import InvalidInput
from loraland_core.resources.finetunejob import LoraSpec, TrainingSpec
from loraland_models.weights import Precision
from loraland_trainer import loop, model
from loraland_trainer.examples import Example
from loraland_trainer.progress import Board
from loraland_trainer.termination import Terminated, Terminator

PAD = 258
FLOAT32 = Precision(dtype="float32", quantization="none")
EXAMPLES = [
    Example(prompt=[1, 2, 3], completion=[4, 5], reference=""),
    Example(prompt=[6], completion=[7, 8, 9], reference=""),
    Example(prompt=list(range(10, 20)), completion=[20], reference=""),
    Example(prompt=[21, 22], completion=[23, 24], reference=""),
]


def collate(examples: list[Example]) -> dict[str, Any]:
    dataset = loop.ExampleDataset(examples)
    return loop.Collator(PAD)([dataset[i] for i in range(len(dataset))])


def test_batches_are_padded_on_the_left() -> None:
    """All completions end in the last column, and labels cover the last columns only."""
    batch = collate(EXAMPLES[:2])

    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [PAD, 6, 7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 0, 1, 2, 3]]
    assert batch["labels"].tolist() == [[-100, -100, 4, 5], [-100, 7, 8, 9]]
    assert batch["logits_to_keep"] == 4


def plain_loss(llama: Any, examples: list[Example]) -> float:
    """Return the loss as a loop over single rows without padding gives it."""
    total, count = 0.0, 0
    for example in examples:
        logits = llama(input_ids=torch.tensor([[*example.prompt, *example.completion]])).logits[0]
        predicted = logits[len(example.prompt) - 1 : -1]
        wanted = torch.tensor(example.completion)
        total += float(torch.nn.functional.cross_entropy(predicted, wanted, reduction="sum"))
        count += len(example.completion)
    return total / count


def test_loss_is_the_completions_alone() -> None:
    """Padding, position shifts and dropped columns change nothing: 1e-5 in float32."""
    llama = tiny_models.build_llama()
    batch = collate(EXAMPLES)
    labels = batch.pop("labels")

    with torch.no_grad():
        found = float(loop.completion_loss(llama(**batch), labels))
        expected = plain_loss(llama, EXAMPLES)

    assert pytest.approx(expected, abs=1e-5) == found


def test_loss_of_parts_adds_up_to_the_whole() -> None:
    """With the accumulated count, micro-batches weigh by their tokens."""
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[-100, 1, 2], [-100, -100, 3]])

    whole = loop.completion_loss({"logits": logits}, labels)
    parts = [
        loop.completion_loss({"logits": logits[i : i + 1]}, labels[i : i + 1], 3) for i in (0, 1)
    ]

    torch.testing.assert_close(parts[0] + parts[1], whole)


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


def train(folder: Path, board: Board | None = None, terminator: Terminator | None = None) -> Any:
    transformers.set_seed(3)
    tuned = model.attach_adapter(tiny_models.build_llama(), LoraSpec(rank=4, alpha=8))
    outcome = loop.train(
        tuned,
        EXAMPLES,
        TrainingSpec(
            max_steps=6, batch_size=1, gradient_accumulation=2, learning_rate="0.05", seed=3
        ),
        precision=FLOAT32,
        pad_token_id=PAD,
        work_dir=folder,
        board=board or Board(),
        terminator=terminator or Terminator(),
    )
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

    outcome, _ = train(tmp_path, board)

    assert (board.progress.step, board.progress.total_steps) == (6, 6)
    assert len(outcome.losses) == 6
    assert outcome.losses[-1] < outcome.losses[0]
    assert outcome.final_loss == outcome.losses[-1]
    assert (board.progress.tokens_per_second or 0) > 0


def test_a_request_to_stop_ends_after_the_step(tmp_path: Path) -> None:
    """SIGTERM in mid-run: one step is finished and no more."""
    board, terminator = Board(), Terminator()
    terminator.requested = True

    with pytest.raises(Terminated):
        train(tmp_path, board, terminator)

    assert board.progress.step == 1


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
            precision=FLOAT32,
            pad_token_id=PAD,
            work_dir=tmp_path,
            board=Board(),
            terminator=Terminator(),
        )

    assert caught.value.reason == "LossNotFinite"


def test_unknown_target_modules_are_named_with_the_present() -> None:
    """A typo in targetModules costs no training run."""
    with pytest.raises(InvalidInput, match="no linear module is named 'q_prj'; present: down"):
        model.attach_adapter(tiny_models.build_llama(), LoraSpec(target_modules=["q_prj"]))
