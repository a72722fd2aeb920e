"""Replies from outputs: pieces, whole replies, several completions, scores."""

from typing import Any

import pytest
from loraland_core.rpc import inference_pb2 as pb
from loraland_inference import replies
from loraland_inference.messages import Output
from loraland_inference.replies import Reply

STOP, LENGTH = pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH


def output(index: int, text: str, *, finish: str = "", **more: Any) -> Output:
    given: dict[str, Any] = {"id": "r", "index": index, "text": text, "token_ids": [len(text)]}
    if finish:
        given |= {
            "finish": finish, "error": "", "num_prompt_tokens": 5, "num_output_tokens": 2,
            "num_cached_tokens": 3,
            "queue_s": 0.1 * index, "prefill_s": 0.2, "decode_s": 0.3,
        }  # fmt: skip
    return given | more  # type: ignore[return-value]


def build_reply(num_completions: int) -> Reply:
    return Reply(
        num_completions=num_completions, request_id="id", digest="d", load_s=0.5, tier="disk"
    )


def test_whole_reply_of_one_completion() -> None:
    """The pieces' texts and tokens in order, with usage, timings and who answered."""
    reply = build_reply(1)
    for given in (output(0, "a"), output(0, "bc", finish="stop")):
        reply.add(given)

    whole = reply.build_whole()

    assert (whole.text, list(whole.token_ids), whole.finish_reason) == ("abc", [1, 2], STOP)
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 2)
    assert whole.usage.cached_prompt_tokens == 3
    assert (whole.digest, whole.request_id, whole.timings.adapter_load_s) == ("d", "id", 0.5)
    assert whole.timings.adapter_tier == pb.TIER_DISK
    assert len(whole.completions) == 0


def test_whole_reply_of_several_completions() -> None:
    """Each has its own text and end; tokens are counted together, the slowest is waited for."""
    reply = build_reply(2)
    for given in (
        output(1, "x"), output(0, "a"), output(0, "b", finish="stop"),
        output(1, "y", finish="length"),
    ):  # fmt: skip
        reply.add(given)

    whole = reply.build_whole()

    assert [(c.index, c.text, c.finish_reason) for c in whole.completions] == [
        (0, "ab", STOP),
        (1, "xy", LENGTH),
    ]
    assert (whole.text, whole.usage.completion_tokens) == ("ab", 4)
    assert whole.timings.queue_s == pytest.approx(0.1)


def test_pieces_of_a_stream_say_whose_they_are() -> None:
    """Each completion ends once; the last piece of all alone has the usage."""
    reply = build_reply(2)
    outputs = [
        output(1, "x"), output(0, "", token_ids=[]), output(1, "y", finish="length"),
        output(0, "a", finish="stop"),
    ]  # fmt: skip

    pieces = [reply.build_piece(given) for given in outputs]

    assert pieces[1] is None
    seen = [(p.index, p.text, p.finish_reason, p.HasField("usage")) for p in pieces if p]
    assert seen == [(1, "x", 0, False), (1, "y", LENGTH, False), (0, "a", STOP, True)]


def test_logprobs_go_with_their_tokens() -> None:
    """In a piece those of its tokens, in a whole reply all of them."""
    logprobs = [{"token_id": 1, "logprob": -0.5, "top": [[1, -0.5], [2, -1.5]]}]
    reply = build_reply(1)
    given = output(0, "a", finish="stop", logprobs=logprobs)
    reply.add(given)

    piece = build_reply(1).build_piece(given)

    expected = replies.build_logprobs(logprobs)  # type: ignore[arg-type]
    assert piece is not None
    assert list(piece.logprobs) == list(reply.build_whole().logprobs) == expected
    assert [(t.token_id, t.logprob) for t in expected[0].top] == [(1, -0.5), (2, -1.5)]


def test_score_sums_its_tokens() -> None:
    """A completion's log-probability is the sum over its tokens."""
    logprobs = [{"token_id": i, "logprob": -0.25 * i, "top": []} for i in (1, 2)]

    score = replies.build_score(output(0, "", finish="stop", logprobs=logprobs))

    assert (score.logprob, score.num_tokens) == (-0.75, 2)
    assert [t.token_id for t in score.tokens] == [1, 2]
