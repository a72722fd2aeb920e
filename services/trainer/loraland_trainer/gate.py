"""Whether an adapter is good enough to be published. Pure."""

from dataclasses import dataclass

from loraland_core.artifacts import Score
from loraland_core.resources.finetunejob import GateSpec


@dataclass(frozen=True)
class Verdict:
    passed: bool
    message: str = ""


def judge(spec: GateSpec, scores: list[Score]) -> Verdict:
    """Return whether the first metric reaches what the job demands."""
    first = scores[0]
    base, tuned = first.base or 0.0, first.tuned or 0.0
    if spec.minimum is not None and tuned < float(spec.minimum):
        return Verdict(False, f"{first.name} is {tuned:.4f}, less than the minimum {spec.minimum}")
    if spec.must_beat_base and tuned <= base:
        return Verdict(False, f"{first.name} is {tuned:.4f}, not above the base model's {base:.4f}")
    return Verdict(True)
