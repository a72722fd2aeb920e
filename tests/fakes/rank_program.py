"""One process of a group that trains a tiny model: started by the tests with its folder and last step."""

import json
import sys
from pathlib import Path

import tiny_models
import torch
import transformers
from fake_store import FakeStore
from loraland_core.resources.finetunejob import LoraSpec, TrainingSpec
from loraland_models.weights import Precision
from loraland_trainer import group, loop, model
from loraland_trainer.checkpoints import Checkpoints, random_state
from loraland_trainer.examples import Example
from loraland_trainer.progress import Board
from loraland_trainer.termination import Terminated, Terminator

EXAMPLES = [Example([*range(n, n + 3 + n % 5)], [n, n + 1], "") for n in range(1, 40)]


class StopAt(Terminator):
    """A request to stop that comes to the first process while a certain step runs."""

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


def main() -> None:
    folder, last = Path(sys.argv[1]), int(sys.argv[2])
    transformers.set_seed(3)
    tuned = model.attach_adapter(
        tiny_models.build_llama(), LoraSpec(rank=4, alpha=8, dropout="0.3")
    )
    # Each process begins with another state, as its own share of the rows will give it anyway.
    torch.manual_seed(group.rank())
    board = Board()
    store = _kept_store(folder)
    try:
        outcome = loop.train(
            tuned,
            EXAMPLES,
            TrainingSpec(
                max_steps=6, batch_size=2, gradient_accumulation=2, learning_rate="0.05", seed=3
            ),
            lora=LoraSpec(),
            precision=Precision(dtype="float32", quantization="none"),
            pad_token_id=258,
            work_dir=folder / "work",
            board=board,
            checkpoints=Checkpoints(
                store, "uid", keep_last=1, work_dir=folder / f"c{group.rank()}"
            ),
            checkpoint_every_steps=100,
            terminator=StopAt(board, last),
        )
    except Terminated:
        if group.rank() == 0:
            for key, data in store.objects.items():
                (folder / key.replace("/", "@")).write_bytes(data)
        return
    weights = {n: p.tolist() for n, p in tuned.named_parameters() if p.requires_grad}
    random = random_state()["cpu"].tolist()
    said = {"losses": outcome.losses, "weights": weights, "random": random}
    (folder / f"said-{group.rank()}.json").write_text(json.dumps(said))


def _kept_store(folder: Path) -> FakeStore:
    """Return a store with what an earlier run of this group has left in the folder."""
    store = FakeStore()
    for file in folder.glob("*@*"):
        store.objects[file.name.replace("@", "/")] = file.read_bytes()
    return store


if __name__ == "__main__":
    main()
