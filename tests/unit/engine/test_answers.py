"""What a request gains from its steps: scores, several completions, forms, and one end each."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_base
import torch
from loraland_core.errors import InvalidInput
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.grammar import Grammar, GrammarCompiler
from loraland_engine.sequence import FinishReason, Output, SamplingParams
from transformers import AutoModelForCausalLM, AutoTokenizer

# A step holds sixteen tokens, so prompts and completions are read in pieces.
CONFIG = EngineConfig(max_running=6, max_step_tokens=16, context_tokens=256, num_slots=1)
PROMPT = list(b"the prompt of it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base.write_base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    opened = Engine(model, AutoTokenizer.from_pretrained(folder), CONFIG)
    yield opened
    opened.close()


def compiler(engine: Engine) -> GrammarCompiler:
    return GrammarCompiler(
        engine.tokenizer,
        vocabulary_size=engine.vocabulary_size,
        eos_token_ids=engine.eos_token_ids,
    )


def finish(engine: Engine) -> dict[tuple[str, int], list[Output]]:
    """Step until nothing is left; return the outputs by request and completion."""
    found: dict[tuple[str, int], list[Output]] = {}
    while engine.has_work():
        for output in engine.step():
            found.setdefault((output.request_id, output.index), []).append(output)
    return found


def tokens(outputs: list[Output]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def text(outputs: list[Output]) -> str:
    return "".join(output.text for output in outputs)


def reference(folder: Path, prompt: list[int], completion: list[int]) -> list[float]:
    """Return what Transformers' own float32 log_softmax gives for each token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
    rows = logprobs[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])
    found: list[float] = rows[:, 0].tolist()
    return found


def test_scores_are_those_of_transformers_token_by_token(engine: Engine, folder: Path) -> None:
    """Completions of many lengths, scored in one batch beside a generation, within 1e-4."""
    completions = [list(b"a"), list(b"its completion, longer than a step"), list(b"bc")]
    engine.submit("other", PROMPT, SamplingParams(max_tokens=20, ignore_eos=True))
    engine.submit_score("s", PROMPT, completions)

    found = finish(engine)

    for index, completion in enumerate(completions):
        (output,) = found["s", index]
        expected = reference(folder, PROMPT, completion)
        assert [p.token_id for p in output.logprobs] == completion
        assert [p.logprob for p in output.logprobs] == pytest.approx(expected, abs=1e-4)
        assert output.logprob == pytest.approx(sum(expected), abs=1e-3)
        assert (output.num_prompt_tokens, output.num_output_tokens) == (16, len(completion))


@pytest.mark.parametrize(
    ("prompt", "completions", "field"),
    [
        (PROMPT, [[1], []], "completions[1]"),
        (PROMPT, [[1], [1] * 300], "completions[1]"),
        ([], [[1]], "completions[0]"),
    ],
    ids=["empty", "long", "no-prompt"],
)
def test_scoring_is_refused_as_a_whole(
    engine: Engine, prompt: list[int], completions: list[list[int]], field: str
) -> None:
    """A bad completion is named, and none of the others is begun."""
    with pytest.raises(InvalidInput) as caught:
        engine.submit_score("s", prompt, completions)

    assert (caught.value.field, engine.has_work()) == (field, False)


def test_logprobs_of_a_generation_are_the_scores_of_its_tokens(
    engine: Engine, folder: Path
) -> None:
    """What was reported while drawing is what scoring the same tokens gives."""
    params = SamplingParams(
        max_tokens=12, temperature=1.5, seed=3, num_logprobs=2, ignore_eos=True, top_p=0.95
    )
    engine.submit("g", PROMPT, params)

    outputs = finish(engine)["g", 0]

    logprobs = [p for output in outputs for p in output.logprobs]
    assert [p.token_id for p in logprobs] == tokens(outputs)
    expected = reference(folder, PROMPT, tokens(outputs))
    assert [p.logprob for p in logprobs] == pytest.approx(expected, abs=1e-4)
    assert all(len(p.top) == 2 and p.top[0][1] >= p.logprob for p in logprobs)


def test_n_completions_come_from_one_request(engine: Engine) -> None:
    """They differ, end once each, and are the same again with the same seed."""
    params = SamplingParams(max_tokens=10, temperature=1.0, seed=9, n=3, ignore_eos=True)
    runs = []
    for name in ("a", "b"):
        engine.submit(name, PROMPT, params)
        runs.append({index: outputs for (_, index), outputs in finish(engine).items()})
    engine.submit("one", PROMPT, SamplingParams(**vars(params) | {"n": 1}))
    alone = finish(engine)["one", 0]

    first = {index: tokens(outputs) for index, outputs in runs[0].items()}
    assert first == {index: tokens(outputs) for index, outputs in runs[1].items()}
    assert len({tuple(t) for t in first.values()}) == 3
    assert first[0] == tokens(alone)
    ends = [[o.finish_reason for o in outputs if o.finish_reason] for outputs in runs[0].values()]
    assert ends == [[FinishReason.LENGTH]] * 3


def test_cancel_ends_all_completions_of_a_request(engine: Engine) -> None:
    """None of them gains a token after it, and others go on."""
    params = SamplingParams(max_tokens=50, temperature=1.0, n=3, ignore_eos=True)
    engine.submit("gone", PROMPT, params)
    engine.submit("stays", PROMPT, SamplingParams(max_tokens=5, ignore_eos=True))
    for _ in range(6):
        engine.step()
    engine.cancel("gone")

    found = finish(engine)

    for index in range(3):
        (output,) = found["gone", index]
        assert (output.finish_reason, output.token_ids) == (FinishReason.CANCELLED, ())
    assert found["stays", 0][-1].finish_reason == FinishReason.LENGTH


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "drawn"])
def test_answers_have_their_forms_whatever_shares_their_batch(
    engine: Engine, temperature: float
) -> None:
    """A random model writes JSON, digits and choices, beside a request that is free."""
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["red", "blue"]}},
        "required": ["ok", "kind"],
        "additionalProperties": False,
    }
    grammars = {
        "json": Grammar("json_schema", json.dumps(schema)),
        "digits": Grammar("regex", "[0-9]{3}"),
        "choice": Grammar("choice", '["yes", "no"]'),
    }
    options: dict[str, Any] = {"max_tokens": 200, "temperature": temperature, "seed": 1}
    forms = compiler(engine)
    for name, form in grammars.items():
        params = SamplingParams(n=2, **options)
        engine.submit(name, PROMPT, params, constraint=forms.compile(form))
    engine.submit("free", PROMPT, SamplingParams(max_tokens=10, ignore_eos=True))

    found = finish(engine)

    for index in range(2):
        answer = json.loads(text(found["json", index]))
        assert (set(answer), answer["kind"] in ("red", "blue")) == ({"ok", "kind"}, True)
        assert text(found["digits", index]).isdigit()
        assert text(found["choice", index]) in ("yes", "no")
        assert found["json", index][-1].finish_reason == FinishReason.STOP
    assert len(tokens(found["free", 0])) == 10


def test_a_form_that_turns_out_impossible_ends_its_request_alone(engine: Engine) -> None:
    """The end says why, and the neighbour does not notice."""

    class Failing:
        is_complete = False

        def __init__(self) -> None:
            self.error = ""

        def copy(self) -> "Failing":
            return Failing()

        def mask(self) -> bytes:
            return b"\xff" * 40

        def accept(self, token_id: int) -> None:
            self.error = f"no room for token {token_id}"

    engine.submit("bad", PROMPT, SamplingParams(max_tokens=9), constraint=Failing())
    engine.submit("good", PROMPT, SamplingParams(max_tokens=9, ignore_eos=True))

    found = finish(engine)

    (output,) = found["bad", 0]
    assert (output.finish_reason, output.token_ids) == (FinishReason.REFUSED, ())
    assert output.error.startswith("no room for token")
    assert len(tokens(found["good", 0])) == 9


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"stop_token_ids": True}, FinishReason.STOP),
        ({"stop": True}, FinishReason.STOP),
        ({"max_tokens": 3}, FinishReason.LENGTH),
    ],
    ids=["stop-token", "stop-string", "length"],
)
def test_an_answer_ends_for_the_reason_that_was_asked(
    engine: Engine, params: dict[str, Any], expected: FinishReason
) -> None:
    """At a token, at a text or at a count that the unrestrained answer reaches."""
    free = SamplingParams(max_tokens=12, temperature=1.0, seed=4, ignore_eos=True)
    engine.submit("free", PROMPT, free)
    outputs = finish(engine)["free", 0]
    fifth = outputs[4]
    changes = {
        "stop_token_ids": frozenset(fifth.token_ids), "stop": (fifth.text or text(outputs)[2:4],),
        "max_tokens": 3,
    }  # fmt: skip
    asked = {name: changes[name] for name in params}
    engine.submit("asked", PROMPT, SamplingParams(**vars(free) | asked))

    found = finish(engine)["asked", 0]

    assert found[-1].finish_reason == expected
    assert tokens(found) == tokens(outputs)[: len(tokens(found))]
    assert len(tokens(found)) <= 12
