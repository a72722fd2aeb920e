"""What the FineTuneJob's own rules refuse about scores, with the sentence that its author reads."""

from typing import Any

import pytest
from loraland_core import crds
from loraland_local.api import rules

Json = dict[str, Any]
PROGRAM = "{answer}\n{tests}"


def evaluation_schema() -> Json:
    [job] = [c for c in crds.build_crds() if c["spec"]["names"]["kind"] == "FineTuneJob"]
    schema = job["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: Json = schema["properties"]["spec"]["properties"]["evaluation"]
    return found


@pytest.mark.parametrize(
    ("evaluation", "part"),
    [
        pytest.param({"metrics": ["PassAt1"]}, "need each other", id="no-program"),
        pytest.param({"metrics": ["F1"], "program": PROGRAM}, "need each other", id="no-metric"),
        pytest.param({"metrics": ["PassAt1"], "program": "1"}, "{answer}", id="no-answer"),
        pytest.param({"metrics": ["PassAt1", "F1"], "program": PROGRAM}, "", id="program"),
        pytest.param(
            {"metrics": ["Perplexity"], "gate": {"minimum": "2"}}, "gate.maximum is", id="minimum"
        ),
        pytest.param({"metrics": ["F1"], "gate": {"maximum": "2"}}, "gate.maximum is", id="f1"),
        pytest.param({"metrics": ["Perplexity"], "gate": {"maximum": "2"}}, "", id="perplexity"),
        pytest.param({"metrics": ["F1", "Perplexity"], "gate": {"minimum": "0.5"}}, "", id="f1-ok"),
    ],
)
def test_scores_that_cannot_be_had_are_refused(evaluation: Json, part: str) -> None:
    """An apply says it, before any pod runs."""
    causes = rules.check({"gate": {}} | evaluation, None, evaluation_schema(), "spec.evaluation")

    assert bool(part) == bool(causes)
    assert part in " ".join(map(str, causes))
