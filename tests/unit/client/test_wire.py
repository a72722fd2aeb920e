"""Between Python values and messages: forms, log-probabilities, several completions."""

from typing import Any

import pytest
from loraland_client import Completion, TokenLogprob, wire
from loraland_core.rpc import inference_pb2 as pb


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, None),
        ({"json_schema": None, "choice": None}, None),
        ({"json_schema": {"type": "object"}}, pb.Constraint(json_schema='{"type": "object"}')),
        ({"json_schema": '{"type":"null"}'}, pb.Constraint(json_schema='{"type":"null"}')),
        ({"regex": "a+"}, pb.Constraint(regex="a+")),
        ({"choice": ["a", "b"]}, pb.Constraint(choice=pb.Choice(options=["a", "b"]))),
    ],
    ids=["none", "nones", "schema", "schema-text", "regex", "choice"],
)
def test_form_is_sent_by_its_kind(request_: Any, expected: pb.Constraint | None) -> None:
    """A schema may be an object or its text."""
    assert expected == wire.build_constraint(request_)


def test_more_than_one_form_is_refused() -> None:
    """Before anything is sent."""
    with pytest.raises(TypeError, match="at most one"):
        wire.build_constraint({"regex": "a", "choice": ["a"]})


def test_sampling_parameters_are_sent_by_their_names() -> None:
    """What is given is set, and what is not keeps the server's default."""
    request = wire.build_request(
        {
            "prompt": "x", "min_p": 0.5, "repetition_penalty": 1.5, "presence_penalty": 0.25,
            "frequency_penalty": -0.5, "logit_bias": {3: -1.0}, "logprobs": 0, "n": 2, "seed": 7,
        }
    )  # fmt: skip

    expected = pb.SamplingParams(
        min_p=0.5, repetition_penalty=1.5, presence_penalty=0.25, frequency_penalty=-0.5,
        logit_bias={3: -1.0}, logprobs=0, n=2, seed=7,
    )  # fmt: skip
    assert request.sampling == expected
    assert request.sampling.HasField("logprobs")
    assert not request.sampling.HasField("constraint")


def test_whole_reply_has_its_completions() -> None:
    """Each with its own end and log-probabilities."""
    logprob = pb.TokenLogprob(token_id=4, logprob=-1.5, top=[pb.TopToken(token_id=5, logprob=-0.5)])
    response = pb.GenerateResponse(
        text="a",
        finish_reason=pb.FINISH_REASON_STOP,
        usage=pb.Usage(prompt_tokens=3, completion_tokens=2, cached_prompt_tokens=1),
        completions=[
            pb.Completion(index=0, text="a", finish_reason=pb.FINISH_REASON_STOP),
            pb.Completion(
                index=1, text="b", finish_reason=pb.FINISH_REASON_LENGTH, logprobs=[logprob]
            ),
        ],
    )

    found = wire.read_completion(response)

    assert (found.text, found.finish_reason) == ("a", "stop")
    assert (found.completion_tokens, found.cached_prompt_tokens) == (2, 1)
    assert found.completions == (
        Completion("a", (), "stop", 0),
        Completion("b", (), "length", 1, (TokenLogprob(4, -1.5, ((5, -0.5),)),)),
    )


def test_piece_of_a_stream_says_whose_it_is() -> None:
    """Without an end it has neither reason nor usage."""
    piece = wire.read_completion(pb.GenerateStreamResponse(text="b", token_ids=[1], index=2))

    assert piece == Completion("b", (1,), "", 2)
