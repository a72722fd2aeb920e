"""Limits on sampling parameters: each is refused with the field as the caller wrote it."""

from pathlib import Path
from typing import Any

import pytest
from loraland_core.errors import InvalidInput
from loraland_core.rpc import inference_pb2 as pb
from loraland_inference import sampling
from loraland_inference.requests import ModelLimits

LIMITS = ModelLimits(context_tokens=64, vocabulary_size=100)
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": NAN}, "temperature"),
        ({"temperature": INFINITY}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": NAN}, "repetition_penalty"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"logit_bias": {5: 101.0}}, "logit_bias[5]"),
        ({"logit_bias": {5: NAN}}, "logit_bias[5]"),
        ({"logit_bias": {100: 1.0}}, "logit_bias"),
        ({"logit_bias": dict.fromkeys(range(301), 1.0)}, "logit_bias"),
        ({"logprobs": 21}, "logprobs"),
        ({"n": 17}, "n"),
        ({"max_tokens": 65}, "max_tokens"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"stop": ["ok", ""]}, "stop[1]"),
        ({"stop": ["é" * 65]}, "stop[0]"),
        ({"stop_token_ids": [100]}, "stop_token_ids"),
        ({"stop_token_ids": [1] * 33}, "stop_token_ids"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sampling_is_refused_with_its_field(given: dict[str, Any], field: str) -> None:
    """Every parameter has its limits."""
    with pytest.raises(InvalidInput) as caught:
        sampling.build_params(pb.SamplingParams(**given), LIMITS)

    assert caught.value.field == f"sampling.{field}"


def test_sampling_is_greedy_by_default() -> None:
    """What is absent gets the default that GetServerInfo tells."""
    params = sampling.build_params(pb.SamplingParams(), ModelLimits(1000, 100))

    assert params == {
        "max_tokens": 128, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "logit_bias": [], "seed": None, "num_logprobs": None, "n": 1,
        "stop": [], "stop_token_ids": [], "ignore_eos": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (pb.Constraint(json_schema="{}"), {"kind": "json_schema", "text": "{}"}),
        (pb.Constraint(regex="a+"), {"kind": "regex", "text": "a+"}),
        (
            pb.Constraint(choice=pb.Choice(options=["é", 'a"b'])),
            {"kind": "choice", "text": '["é", "a\\"b"]'},
        ),
    ],
    ids=["json-schema", "regex", "choice"],
)
def test_constraint_becomes_a_grammar(constraint: pb.Constraint, expected: Any) -> None:
    """Each kind is passed on as text."""
    assert sampling.build_grammar(pb.SamplingParams(constraint=constraint)) == expected


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"constraint": pb.Constraint()}, "constraint"),
        ({"constraint": pb.Constraint(regex="")}, "constraint.regex"),
        ({"constraint": pb.Constraint(regex="a" * 70_000)}, "constraint.regex"),
        ({"constraint": pb.Constraint(choice=pb.Choice())}, "constraint.choice"),
        ({"constraint": pb.Constraint(choice=pb.Choice(options=[""]))}, "constraint.choice"),
        (
            {"constraint": pb.Constraint(choice=pb.Choice(options=["x"] * 257))},
            "constraint.choice",
        ),
        ({"constraint": pb.Constraint(json_schema="{}"), "ignore_eos": True}, "ignore_eos"),
    ],
    ids=["none", "empty", "large", "no-options", "empty-option", "many-options", "ignore-eos"],
)
def test_constraint_is_refused_with_its_field(given: dict[str, Any], field: str) -> None:
    """A form is one of three kinds, of bounded size, and decides itself where an answer ends."""
    with pytest.raises(InvalidInput) as caught:
        sampling.build_grammar(pb.SamplingParams(**given))

    assert caught.value.field == f"sampling.{field}"


def test_every_sampling_field_is_documented() -> None:
    """docs/requests.md has a row for each field of the contract, and for each kind of form."""
    text = (Path(__file__).parents[3] / "docs" / "requests.md").read_text()
    fields = {f.name for f in pb.SamplingParams.DESCRIPTOR.fields} - {"constraint"}
    forms = {f"constraint.{f.name}" for f in pb.Constraint.DESCRIPTOR.fields}

    missing = {name for name in fields | forms if f"| `{name}` |" not in text}

    assert missing == set()
