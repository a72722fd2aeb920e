"""Whether an adapter is good enough to be published. Pure."""

from dataclasses import dataclass

from loraland_core.artifacts import Score
from loraland_core.resources.finetunejob import PERPLEXITY, GateSpec


@dataclass(frozen=True)
class Verdict:
    passed: bool
    message: str = ""


def judge(spec: GateSpec, scores: list[Score]) -> Verdict:
    """Return whether the first metric reaches what the job demands."""
    first = scores[0]
    base, tuned = first.base or 0.0, first.tuned or 0.0
    found = f"{first.name} is {tuned:.4f}"
    if spec.minimum is not None and tuned < float(spec.minimum):
        return Verdict(False, f"{found}, less than the minimum {spec.minimum}")
    if spec.maximum is not None and tuned > float(spec.maximum):
        return Verdict(False, f"{found}, more than the maximum {spec.maximum}")
    is_lower_better = first.name == PERPLEXITY
    if spec.must_beat_base and (tuned >= base if is_lower_better else tuned <= base):
        side = "below" if is_lower_better else "above"
        return Verdict(False, f"{found}, not {side} the base model's {base:.4f}")
    return Verdict(True)
