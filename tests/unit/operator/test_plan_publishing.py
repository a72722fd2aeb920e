"""Who may publish an Adapter under which name."""

from typing import Any

import pytest
from loraland_core.resources import Adapter
from loraland_operator.plan import publishing
from operator_objects import DIGEST, UID, build_adapter, build_job, build_published

BEFORE, SAME, AFTER = "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", "2026-01-01T11:00:01Z"


@pytest.mark.parametrize(
    ("adapter", "wanted"),
    [
        pytest.param(None, publishing.Publish, id="free-name"),
        pytest.param(
            build_published(job="tickets", uid=UID), publishing.Published, id="ours-already"
        ),
        pytest.param(build_adapter(), publishing.Taken, id="made-by-hand"),
        pytest.param(
            build_published(job="old", uid="z", created=BEFORE), publishing.Publish, id="older-job"
        ),
        pytest.param(
            build_published(job="new", uid="0", created=AFTER), publishing.Taken, id="newer-job"
        ),
        pytest.param(
            build_published(job="twin", uid="0", created=SAME), publishing.Publish, id="twin-first"
        ),
        pytest.param(
            build_published(job="twin", uid="z", created=SAME), publishing.Taken, id="twin-second"
        ),
        pytest.param(
            build_published(job="old", uid="z", created="?"), publishing.Taken, id="no-annotation"
        ),
        pytest.param(
            build_published(job="old", uid="z", created=BEFORE, baseModel="llama"),
            publishing.Taken,
            id="another-base-model",
        ),
    ],
)
def test_publishing_rule(adapter: Adapter | None, wanted: type[Any]) -> None:
    """Create, or replace an older job's; leave alone what is by hand, newer or another base's."""
    decision = publishing.decide(build_job(), DIGEST, adapter)

    assert wanted is type(decision)


def test_replacing_is_bound_to_the_version_seen() -> None:
    """Whoever changes the Adapter between our look and our write wins."""
    older = build_published(job="old", uid="z", created=BEFORE)

    decision = publishing.decide(build_job(), DIGEST, older)

    assert isinstance(decision, publishing.Publish)
    assert decision.manifest["metadata"]["resourceVersion"] == "7"
