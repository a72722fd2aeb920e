"""What the API server answers, translated into what to do about it."""

import json
from typing import Any

import pytest
from loraland_core.errors import InvalidInput, LoraLandError, NotFound, Unavailable
from loraland_operator import answers, cluster

FIELD_CONFLICT = {"details": {"causes": [{"reason": "FieldManagerConflict"}]}}


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        pytest.param(404, {}, NotFound, id="not-found"),
        pytest.param(409, {"reason": "AlreadyExists"}, answers.AlreadyExists, id="exists"),
        pytest.param(409, {"reason": "Conflict"}, answers.Stale, id="stale"),
        pytest.param(
            409, {"reason": "Conflict"} | FIELD_CONFLICT, answers.FieldConflict, id="field-conflict"
        ),
        pytest.param(403, {"reason": "Forbidden"}, answers.Forbidden, id="forbidden"),
        pytest.param(422, {"reason": "Invalid"}, InvalidInput, id="invalid"),
        pytest.param(400, {}, InvalidInput, id="bad-request"),
        pytest.param(410, {"reason": "Expired"}, answers.Expired, id="expired"),
        pytest.param(429, {}, Unavailable, id="too-many"),
        pytest.param(401, {}, Unavailable, id="token-expired"),
        pytest.param(500, {}, Unavailable, id="broken"),
    ],
)
def test_answer_is_translated(
    status: int, answer: dict[str, Any], error: type[LoraLandError]
) -> None:
    """Fix it, wait, or give up: each answer has one of the three."""
    found = answers.translate(status, json.dumps(answer | {"message": "why"}).encode(), None)

    assert error is type(found)
    assert "why" in str(found)


def test_retry_after_is_obeyed() -> None:
    """A server that says when to come again is believed."""
    found = answers.translate(429, b"busy", "7")

    assert isinstance(found, Unavailable)
    assert found.retry_after_s == 7


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        pytest.param(cluster.JOBS, ("ns",), "/apis/batch/v1/namespaces/ns/jobs", id="list"),
        pytest.param(cluster.ADAPTERS, ("",), "/apis/loraland.dev/v1alpha1/adapters", id="all"),
        pytest.param(
            cluster.PODS, ("ns", "p", "log"), "/api/v1/namespaces/ns/pods/p/log", id="subresource"
        ),
    ],
)
def test_paths(resource: cluster.Resource, arguments: tuple[str, ...], path: str) -> None:
    """Each kind has its place in the API."""
    assert path == resource.path(*arguments)
