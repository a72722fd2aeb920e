"""A status in the making is one that the API server takes."""

from loraland_core.resources import AdapterStatus
from loraland_operator.plan.draft import Draft
from operator_objects import NOW


def test_condition_keeps_within_the_apis_limits() -> None:
    """A message that quotes too much is cut, because the status would be refused as a whole."""
    draft = Draft(AdapterStatus(), [], generation=1, now=NOW)

    draft.set("Ready", "False", "A" * 100, "x" * 100_000)

    found = draft.find("Ready")
    assert (len(found.reason), len(found.message)) == (64, 8192)
