"""What a model bears: whether rows may lie end to end, and how many fit."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from loraland_core.resources.finetunejob import LoraSpec, TrainingSpec
from loraland_trainer import fit, memory, model
from loraland_trainer.examples import Example
from loraland_trainer.microsteps import MicroSteps
from transformers import MistralConfig, MistralForCausalLM

EXAMPLES = [Example([*range(n)], [1, 2], "") for n in (10, 20, 30, 38)]
SPEC = TrainingSpec(batch_size=2, gradient_accumulation=8)
GIB = 1024**3


def attached(base: Any) -> Any:
    return model.attach_adapter(base, LoraSpec())


def count(monkeypatch: pytest.MonkeyPatch, spec: TrainingSpec, available_bytes: int) -> int:
    monkeypatch.setattr(memory, "available_bytes", lambda _: available_bytes)
    tuned = attached(tiny_models.build_llama())
    steps = MicroSteps(tuned, is_packed=False, pad_token_id=258, may_checkpoint=True)
    return fit.count_parts(steps, EXAMPLES, spec)


@pytest.mark.parametrize(
    ("spec", "available_bytes", "expected"),
    [
        pytest.param(SPEC, 64 * GIB, 1, id="enough"),
        pytest.param(SPEC, 0, 16, id="a-row-at-a-time"),
        pytest.param(
            SPEC.model_copy(update={"auto_batch_size": False}), 0, 8, id="as-the-job-says"
        ),
    ],
)
def test_micro_steps_fit_the_memory(
    monkeypatch: pytest.MonkeyPatch, spec: TrainingSpec, available_bytes: int, expected: int
) -> None:
    """Sixteen rows a step, in as few parts as the memory allows."""
    assert count(monkeypatch, spec, available_bytes) == expected


def test_less_memory_means_more_micro_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number only grows, by powers of two, and never beyond the rows."""
    counts = [count(monkeypatch, SPEC, 2**exponent) for exponent in range(34, 14, -4)]

    assert counts == sorted(counts)
    assert set(counts) <= {1, 2, 4, 8, 16}


def test_a_packed_model_is_tried() -> None:
    """The tiny model's rows may lie end to end."""
    assert fit.may_pack(attached(tiny_models.build_llama()))


def test_rows_are_padded_where_a_window_is_shorter(caplog: pytest.LogCaptureFixture) -> None:
    """A sliding window cannot be packed; the log says why."""
    caplog.set_level("INFO")
    config = MistralConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
    )

    assert not fit.may_pack(attached(MistralForCausalLM(config)))
    assert "rows are padded" in caplog.text


def test_rows_are_padded_where_a_model_mixes_them(caplog: pytest.LogCaptureFixture) -> None:
    """As a recurrent one would: what stands before in the sequence changes the row."""
    caplog.set_level("INFO")
    llama = tiny_models.build_llama()
    llama.model.layers[0].register_forward_hook(
        lambda module, given, out: out + 0.1 * out.cumsum(dim=1)
    )

    assert not fit.may_pack(attached(llama))
    assert "this model mixes them" in caplog.text


def test_a_containers_limit_is_seen(tmp_path: Path) -> None:
    """What its cgroup leaves, cached files not counted; without a limit, what the machine has."""
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8000 kB\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 500000\n")
    files = {"cgroup": tmp_path, "meminfo": tmp_path / "meminfo"}

    unlimited = memory.available_bytes("cpu", **files)
    (tmp_path / "memory.max").write_text("max\n")
    same = memory.available_bytes("cpu", **files)
    (tmp_path / "memory.max").write_text("4000000\n")
    limited = memory.available_bytes("cpu", **files)

    assert (unlimited, same, limited) == (8_192_000, 8_192_000, 1_500_000)


def test_what_forward_keeps_is_counted() -> None:
    """One product keeps its input; the weight is there anyway."""
    linear = torch.nn.Linear(4, 4, bias=False)
    given = torch.zeros(100, 4)

    with memory.counting_kept(linear) as kept:
        linear(given)
        found = kept()

    assert found == 100 * 4 * 4
