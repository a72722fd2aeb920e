"""The gate looks at the first metric."""

import pytest
from loraland_core.artifacts import Score
from loraland_core.resources.finetunejob import GateSpec
from loraland_trainer import gate


@pytest.mark.parametrize(
    ("spec", "base", "tuned", "passed", "part"),
    [
        pytest.param(GateSpec(), 0.5, 0.1, True, "", id="no-gate"),
        pytest.param(GateSpec(minimum="0.8"), 0.0, 0.8, True, "", id="minimum-reached"),
        pytest.param(
            GateSpec(minimum="0.8"), 0.0, 0.79, False, "0.7900, less than the minimum 0.8", id="low"
        ),
        pytest.param(GateSpec(must_beat_base=True), 0.4, 0.5, True, "", id="better-than-base"),
        pytest.param(
            GateSpec(must_beat_base=True), 0.5, 0.5, False, "not above the base", id="as-base"
        ),
    ],
)
def test_gate(spec: GateSpec, base: float, tuned: float, passed: bool, part: str) -> None:
    """A verdict that is negative says which score fell short of what."""
    scores = [Score(name="F1", base=base, tuned=tuned), Score(name="RougeL", base=1, tuned=0)]

    verdict = gate.judge(spec, scores)

    assert passed == verdict.passed
    assert part in verdict.message


@pytest.mark.parametrize(
    ("spec", "tuned", "part"),
    [
        pytest.param(GateSpec(maximum="8"), 8.0, "", id="maximum-kept"),
        pytest.param(GateSpec(maximum="8"), 8.1, "8.1000, more than the maximum 8", id="high"),
        pytest.param(GateSpec(must_beat_base=True), 9.9, "", id="better-than-base"),
        pytest.param(GateSpec(must_beat_base=True), 10.0, "not below the base", id="as-base"),
    ],
)
def test_perplexity_is_better_when_it_is_lower(spec: GateSpec, tuned: float, part: str) -> None:
    """The base model's is ten."""
    verdict = gate.judge(spec, [Score(name="Perplexity", base=10, tuned=tuned)])

    assert verdict.passed == (part == "")
    assert part in verdict.message
