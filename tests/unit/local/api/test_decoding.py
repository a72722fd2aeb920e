"""From bytes to objects."""

import pytest
from loraland_local.api import decoding, kinds
from loraland_local.api.errors import ApiError


def test_unknown_field_is_refused_when_strict() -> None:
    """Kubectl asks for strictness; the field is named with its path."""
    obj = {"spec": {"containers": [{"name": "c", "imag": "x"}]}}

    with pytest.raises(ApiError) as caught:
        decoding.check(obj, kinds.PODS, decoding.STRICT, [])

    assert caught.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field'
        ' "spec.containers[0].imag"'
    )


def test_unknown_field_is_dropped_with_a_warning_by_default() -> None:
    """Other clients are warned, and the field is left out."""
    decoded = decoding.check({"spec": {"colour": "red"}}, kinds.PODS, decoding.WARN, ["spec.x"])

    assert decoded.obj == {"spec": {}}
    assert decoded.warnings == ['unknown field "spec.colour"', 'duplicate field "spec.x"']


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(
            {"spec": {"containers": {}}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type"
            " []v1.Container",
            id="object for a list",
        ),
        pytest.param(
            {"spec": {"priority": "high"}},
            "json: cannot unmarshal string into Go struct field PodSpec.spec.priority of type int32",
            id="text for a number",
        ),
        pytest.param(
            {"spec": {"hostNetwork": 1}},
            "json: cannot unmarshal number into Go struct field PodSpec.spec.hostNetwork of type"
            " bool",
            id="number for a truth value",
        ),
        pytest.param(
            {"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}},
            "quantities must match the regular expression",
            id="no quantity",
        ),
    ],
)
def test_wrong_type_is_worded_as_go_does(obj: dict[str, object], expected: str) -> None:
    """Built-in kinds are decoded into Go structs on a real server; the words are theirs."""
    with pytest.raises(ApiError) as caught:
        decoding.check(obj, kinds.PODS, decoding.STRICT, [])

    assert caught.value.code == 400
    assert expected in caught.value.message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{not json", "invalid character 'n' looking for beginning of object key string"),
        (b"", "unexpected end of JSON input"),
        (b'{"a": 1', "unexpected end of JSON input"),
        (b"[]", "cannot unmarshal array into Go value"),
    ],
)
def test_malformed_body_says_where(body: bytes, expected: str) -> None:
    """A body that is no object is a bad request."""
    with pytest.raises(ApiError, match="the object provided is unrecognized") as caught:
        decoding.parse(body, "Pod")

    assert expected in caught.value.message


def test_duplicate_keys_are_noticed() -> None:
    """The last one counts, and its name is kept for the warning."""
    obj, duplicates = decoding.parse(b'{"a": 1, "a": 2}', "Pod")

    assert obj == {"a": 2}
    assert duplicates == ["a"]


def test_empty_values_of_builtin_kinds_are_left_out() -> None:
    """What Go would not write is not stored; a part that was meant empty stays."""
    container = {"name": "c", "command": [], "stdin": False, "resources": {}, "tty": None}
    spec = {"nodeName": "", "containers": [container], "securityContext": {}, "priority": 0}

    decoded = decoding.check({"spec": spec}, kinds.PODS, decoding.STRICT, [])

    assert decoded.obj["spec"] == {
        "containers": [{"name": "c", "resources": {}}],
        "securityContext": {},
        "priority": 0,
    }
