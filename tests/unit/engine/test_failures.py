"""What raises for one request ends that one, and leaves nothing of it behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_base
import torch
from loraland_engine import answers
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.sequence import FinishReason, Output, SamplingParams
from transformers import AutoModelForCausalLM, AutoTokenizer

CONFIG = EngineConfig(max_running=4, max_step_tokens=16, context_tokens=64, num_slots=1)
PROMPT = list(b"the prompt of it")
PARAMS = SamplingParams(max_tokens=6, temperature=1.0, seed=5, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base.write_base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    opened = Engine(model, AutoTokenizer.from_pretrained(folder), CONFIG)
    yield opened
    opened.close()


class Broken:
    """A form that raises in one place."""

    error = ""

    def __init__(self, place: str) -> None:
        self.place = place

    def _visit(self, place: str) -> None:
        if place == self.place:
            raise ZeroDivisionError(place)

    @property
    def is_complete(self) -> bool:
        self._visit("is_complete")
        return False

    def copy(self) -> "Broken":
        self._visit("copy")
        return self

    def mask(self) -> bytes:
        self._visit("mask")
        return b"\xff" * 40

    def accept(self, _: int) -> None:
        self._visit("accept")


def finish(engine: Engine) -> dict[str, list[Output]]:
    found: dict[str, list[Output]] = {}
    while engine.has_work():
        for output in engine.step():
            found.setdefault(output.request_id, []).append(output)
    return found


def tokens(outputs: list[Output]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


@pytest.mark.parametrize("place", ["mask", "accept", "is_complete"])
def test_form_that_raises_ends_its_own_request(engine: Engine, place: str) -> None:
    """Its neighbour gains the same tokens as alone, and all memory is free again."""
    engine.submit("alone", PROMPT, PARAMS)
    alone = finish(engine)["alone"]
    engine.submit("bad", PROMPT, PARAMS, constraint=Broken(place))
    engine.submit("good", PROMPT, PARAMS)

    found = finish(engine)

    (output,) = found["bad"]
    assert (output.finish_reason, str(output.failure)) == (FinishReason.FAILED, place)
    assert (output.token_ids, output.text) == ((), "")
    assert tokens(found["good"]) == tokens(alone)
    assert engine.stats().num_free_kv_blocks == engine.stats().num_kv_blocks


def test_text_that_raises_ends_its_own_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the tokenizer can no longer say what was held back."""

    def decode(*_: Any, **__: Any) -> str:
        raise ZeroDivisionError("decode")

    engine.submit("bad", PROMPT, PARAMS)
    engine.submit("good", PROMPT, PARAMS)
    (bad,) = engine._answers.live("bad")
    monkeypatch.setattr(engine._answers._detokenizers[bad], "_decode", decode)

    found = finish(engine)

    assert [o.finish_reason for o in found["bad"]] == [FinishReason.FAILED]
    assert len(tokens(found["good"])) == 6


@pytest.mark.parametrize("place", ["form", "text"])
def test_request_that_cannot_be_begun_leaves_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Not even of the completions that could be; the next request is answered."""
    params = SamplingParams(max_tokens=6, n=3)
    with monkeypatch.context() as patch:
        if place == "text":
            patch.setattr(answers, "Detokenizer", None)
        with pytest.raises((ZeroDivisionError, TypeError)):
            engine.submit(
                "bad", PROMPT, params, constraint=Broken("copy") if place == "form" else None
            )
    was_idle = not engine.has_work()
    engine.submit("bad", PROMPT, PARAMS)

    found = finish(engine)

    assert (was_idle, len(tokens(found["bad"]))) == (True, 6)
