"""What the FineTuneJob's own rules refuse about the adapter's shape."""

from typing import Any

import pytest
from loraland_core import crds
from loraland_local.api import rules

Json = dict[str, Any]


def lora_schema() -> Json:
    [job] = [c for c in crds.build_crds() if c["spec"]["names"]["kind"] == "FineTuneJob"]
    schema = job["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: Json = schema["properties"]["spec"]["properties"]["lora"]
    return found


@pytest.mark.parametrize(
    ("lora", "part"),
    [
        pytest.param({}, "", id="not-given"),
        pytest.param({"learningRateRatio": "1"}, "", id="one-rate"),
        pytest.param({"learningRateRatio": "1.6e1"}, "", id="faster"),
        pytest.param({"learningRateRatio": "0.5"}, "must be at least 1", id="slower"),
    ],
)
def test_a_ratio_that_slows_b_down_is_refused(lora: Json, part: str) -> None:
    """An apply says it, before any pod runs."""
    causes = rules.check(lora, None, lora_schema(), "spec.lora")

    assert bool(part) == bool(causes)
    assert part in " ".join(map(str, causes))
