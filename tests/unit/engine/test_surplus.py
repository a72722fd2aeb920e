"""What an engine frees of a model that is its own."""

import families
import pytest
import tiny_models
from loraland_engine import half_blocks
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.sequence import SamplingParams
from loraland_models import int8
from loraland_models.int8 import Int8Linear
from torch import nn

PROMPTS = [b"a prompt", b"another prompt, longer than a step of this engine"]


def generate(precision: str, *, keeps_model: bool) -> tuple[dict[str, list[int]], int]:
    """Return greedy tokens, and how many bytes of its layers' weights the model still has."""
    model = families.build("llama", precision)
    config = EngineConfig(
        max_running=2, max_step_tokens=16, context_tokens=128, keeps_model=keeps_model
    )
    engine = Engine(model, tiny_models.ByteTokenizer(), config)
    found: dict[str, list[int]] = {}
    for prompt in PROMPTS:
        params = SamplingParams(max_tokens=8, ignore_eos=True)
        engine.submit(str(prompt), list(prompt), params)
    while engine.has_work():
        for output in engine.step():
            found.setdefault(output.request_id, []).extend(output.token_ids)
    linears = [m for m in model.model.modules() if isinstance(m, Int8Linear | nn.Linear)]
    return found, sum(m.weight.untyped_storage().nbytes() for m in linears)


NEEDS_BYTES = pytest.mark.skipif(
    not int8.has_byte_products(), reason="without byte products weights are read in place"
)
NEEDS_HALVES = pytest.mark.skipif(
    not half_blocks.is_supported(), reason="without products of halves weights are read in place"
)


@pytest.mark.parametrize(
    "precision",
    [pytest.param("int8", marks=NEEDS_BYTES), pytest.param("bf16", marks=NEEDS_HALVES)],
)
def test_engine_answers_the_same_without_the_weights_that_it_packed(precision: str) -> None:
    """The packed copy is all that prompts and decoding read, and the embedding that is shared."""
    kept, num_kept = generate(precision, keeps_model=True)
    freed, num_freed = generate(precision, keeps_model=False)

    assert freed == kept
    assert num_freed == 0 < num_kept
