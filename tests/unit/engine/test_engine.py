"""The engine as a whole, on a tiny random model: mixed batches against PEFT, in float32."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from loraland_core.errors import InvalidInput
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.offline import generate
from loraland_engine.sequence import FinishReason, Output, SamplingParams
from peft import PeftModel

GREEDY = SamplingParams(max_tokens=24, ignore_eos=True)
CONFIG = EngineConfig(max_running=4, max_step_tokens=16, context_tokens=128, num_slots=3)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three adapters of different ranks and targets, and one that changes nothing."""
    root = tmp_path_factory.mktemp("adapters")
    some = ["q_proj", "down_proj"]
    return {
        "all": tiny_models.write_adapter(root / "all", seed=1, rank=4),
        "some": tiny_models.write_adapter(root / "some", seed=2, rank=8, target_modules=some),
        "mixed": tiny_models.write_adapter(
            root / "mixed", seed=3, rank=4, rank_pattern={"v_proj": 2}, alpha_pattern={"up_proj": 1}
        ),
        "zero": tiny_models.write_adapter(root / "zero", seed=4, zero_b=True),
    }


@pytest.fixture
def engine() -> Iterator[Engine]:
    opened = Engine(tiny_models.build_llama(), tiny_models.ByteTokenizer(), CONFIG)
    yield opened
    opened.close()


def insert(engine: Engine, adapters: dict[str, Path], *names: str) -> None:
    for name in names:
        engine.insert_adapter(name, engine.read_adapter(adapters[name]))


def finish(engine: Engine) -> dict[str, list[Output]]:
    """Step until nothing is left; return the outputs by request."""
    found: dict[str, list[Output]] = {}
    while engine.has_work():
        for output in engine.step():
            found.setdefault(output.request_id, []).append(output)
    return found


def tokens(outputs: list[Output]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def reference(folder: Path | None) -> Any:
    model = tiny_models.build_llama()
    return PeftModel.from_pretrained(model, str(folder)).eval() if folder else model


def greedy(model: Any, prompt: bytes, num_tokens: int) -> list[int]:
    ids = torch.tensor([list(prompt)])
    for _ in range(num_tokens):
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1]
        ids = torch.cat([ids, logits.argmax()[None, None]], dim=1)
    return [int(i) for i in ids[0, len(prompt) :]]


REQUESTS = [("", b"hello"), ("all", b"hello"), ("some", b"hello"), ("mixed", b"a longer prompt!" * 3),
            ("all", b"x"), ("", b"another, of the base model")]  # fmt: skip


def test_mixed_batch_answers_each_request_as_peft_does(
    engine: Engine, adapters: dict[str, Path]
) -> None:
    """Base and three adapters in one batch, prompts in pieces: greedy tokens equal PEFT's."""
    insert(engine, adapters, "all", "some", "mixed")
    for index, (adapter, prompt) in enumerate(REQUESTS):
        engine.submit(str(index), list(prompt), GREEDY, adapter_id=adapter)

    found = finish(engine)

    expected = [greedy(reference(adapters.get(a)), prompt, 24) for a, prompt in REQUESTS]
    assert [tokens(found[str(i)]) for i in range(len(REQUESTS))] == expected


def test_mixed_batch_gives_the_log_probabilities_of_peft(
    engine: Engine, adapters: dict[str, Path]
) -> None:
    """Scores of one completion under base and adapters agree with PEFT's within 1e-4."""
    insert(engine, adapters, "all", "some", "mixed")
    names = ["", "all", "some", "mixed"]
    prompt, completion = list(b"the prompt of it"), list(b"its completion, longer than a step")
    for name in names:
        engine.submit_score(f"score-{name}", prompt, [completion], adapter_id=name)

    found = finish(engine)

    ids = torch.tensor([prompt + completion])
    for name in names:
        with torch.no_grad():
            logprobs = reference(adapters.get(name))(input_ids=ids).logits[0].log_softmax(-1)
        rows = logprobs[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])
        assert found[f"score-{name}"][0].logprob == pytest.approx(float(rows.sum()), abs=1e-4)


def test_adapter_equals_the_base_exactly_when_b_is_zero(
    engine: Engine, adapters: dict[str, Path]
) -> None:
    """The very same log-probability, not merely a close one."""
    insert(engine, adapters, "zero")
    for name in ("", "zero"):
        engine.submit_score(f"s{name}", list(b"prompt"), [list(b"completion")], adapter_id=name)

    found = finish(engine)

    assert found["s"][0].logprob == found["szero"][0].logprob


def test_seeded_request_gives_the_same_tokens_whatever_else_is_in_the_batch(
    engine: Engine, adapters: dict[str, Path]
) -> None:
    """Alone or among three others, sampling with a seed repeats."""
    insert(engine, adapters, "all")
    seeded = SamplingParams(max_tokens=12, temperature=0.8, top_p=0.95, seed=5, ignore_eos=True)
    engine.submit("alone", list(b"seed"), seeded, adapter_id="all")
    alone = tokens(finish(engine)["alone"])

    for index in range(3):
        engine.submit(f"other{index}", list(b"others"), SamplingParams(temperature=1.0))
    engine.submit("among", list(b"seed"), seeded, adapter_id="all")

    assert tokens(finish(engine)["among"]) == alone


def test_request_ends_at_its_stop_token_and_at_its_limit(engine: Engine) -> None:
    """A stop token ends with STOP and has no text; the limit ends with LENGTH."""
    engine.submit("plain", list(b"hello"), GREEDY)
    produced = tokens(finish(engine)["plain"])
    stop_id = produced[5]
    engine.submit("stopped", list(b"hello"), SamplingParams(stop_token_ids=frozenset({stop_id})))

    last = finish(engine)["stopped"][-1]

    assert (last.finish_reason, last.token_ids) == (FinishReason.STOP, (stop_id,))
    assert last.num_output_tokens == produced.index(stop_id) + 1
    assert len(produced) == 24


def test_request_ends_where_the_context_does(engine: Engine) -> None:
    """``max_tokens`` beyond the context is cut to it."""
    engine.submit("r", list(b"x" * 120), SamplingParams(max_tokens=100, ignore_eos=True))

    last = finish(engine)["r"][-1]

    assert (last.finish_reason, last.num_output_tokens) == (FinishReason.LENGTH, 8)


@pytest.mark.parametrize("num_tokens", [0, 128, 500])
def test_submit_refuses_a_prompt_that_leaves_no_room(engine: Engine, num_tokens: int) -> None:
    """Empty prompts and prompts that fill the context are the caller's fault, by field."""
    with pytest.raises(InvalidInput) as caught:
        engine.submit("r", [1] * num_tokens, GREEDY)

    assert caught.value.field == "input"
    assert not engine.has_work()


def test_cancel_takes_effect_within_a_step(engine: Engine) -> None:
    """No token comes after a cancel, and the others go on."""
    engine.submit("gone", list(b"hello"), GREEDY)
    engine.submit("stays", list(b"hello"), GREEDY)
    engine.step()
    engine.step()

    engine.cancel("gone")
    step = engine.step()

    ended = [o for o in step if o.request_id == "gone"]
    assert [(o.finish_reason, o.token_ids) for o in ended] == [(FinishReason.CANCELLED, ())]
    assert len(tokens(finish(engine)["stays"])) == 24 - 3


def test_deadline_ends_a_running_request() -> None:
    """What the clock has passed is stopped at the next step."""
    clock = Clock()
    engine = Engine(tiny_models.build_llama(), tiny_models.ByteTokenizer(), CONFIG, clock=clock)
    engine.submit("late", list(b"hello"), GREEDY, deadline_s=10.0)
    engine.step()

    clock.now_s = 10.0
    outputs = engine.step()

    assert [o.finish_reason for o in outputs] == [FinishReason.DEADLINE]
    assert not engine.has_work()


def test_slot_is_reused_by_another_adapter(engine: Engine, adapters: dict[str, Path]) -> None:
    """After an eviction the slot's new adapter answers, not what was packed before."""
    insert(engine, adapters, "all", "some", "mixed")
    for name in ("all", "some", "mixed"):
        engine.submit(name, list(b"hello"), GREEDY, adapter_id=name)
    finish(engine)

    engine.remove_adapter("all")
    insert(engine, adapters, "zero")
    engine.submit("zero", list(b"hello"), GREEDY, adapter_id="zero")
    engine.submit("some", list(b"hello"), GREEDY, adapter_id="some")
    found = finish(engine)

    assert engine.num_free_slots == 0
    assert tokens(found["zero"]) == greedy(reference(None), b"hello", 24)
    assert tokens(found["some"]) == greedy(reference(adapters["some"]), b"hello", 24)


def test_generate_answers_prompts_in_order(engine: Engine, adapters: dict[str, Path]) -> None:
    """The offline call serves evaluation: more prompts than fit a batch, in their order."""
    prompts = [list(f"prompt {i}".encode()) for i in range(7)]
    params = SamplingParams(max_tokens=6, ignore_eos=True)

    done: list[int] = []
    answers = generate(
        engine, prompts, params, adapter_folder=adapters["all"], on_finished=done.append
    )

    model = reference(adapters["all"])
    assert [list(a.token_ids) for a in answers] == [greedy(model, bytes(p), 6) for p in prompts]
    assert (done, engine.num_free_slots) == ([1, 2, 3, 4, 5, 6, 7], 3)


def test_close_gives_the_model_back_as_it_was() -> None:
    """After ``close`` the model answers by itself, with its own linears and attention."""
    model = tiny_models.build_llama()
    ids = torch.tensor([list(b"hello")])
    with torch.no_grad():
        before = model(input_ids=ids).logits
    engine = Engine(model, tiny_models.ByteTokenizer(), CONFIG)

    engine.close()

    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, before)
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
