"""From the engine's outputs to protobuf replies. Pure.

A generation has one completion, or ``n`` of them, which the engine tells apart by ``index``.
"""

from collections.abc import Sequence
from typing import TypeVar

from loraland_core.rpc import inference_pb2

from loraland_inference.messages import Logprob, Output

FINISH = {
    "stop": inference_pb2.FINISH_REASON_STOP,
    "length": inference_pb2.FINISH_REASON_LENGTH,
}
TIERS = {
    "": inference_pb2.TIER_UNSPECIFIED,
    "absent": inference_pb2.TIER_ABSENT,
    "disk": inference_pb2.TIER_DISK,
    "host": inference_pb2.TIER_HOST,
    "slot": inference_pb2.TIER_SLOT,
}
Response = TypeVar("Response", inference_pb2.GenerateResponse, inference_pb2.GenerateStreamResponse)


class Reply:
    """One generation's completions while they come: ``add`` them, or build pieces of a stream."""

    def __init__(
        self, *, num_completions: int, request_id: str, digest: str, load_s: float, tier: str = ""
    ) -> None:
        self._num_open = num_completions
        self._completions = [inference_pb2.Completion(index=i) for i in range(num_completions)]
        self._request_id = request_id
        self._digest = digest
        self._timings = inference_pb2.Timings(adapter_load_s=load_s, adapter_tier=TIERS[tier])
        self.usage = inference_pb2.Usage()

    @property
    def is_complete(self) -> bool:
        return self._num_open == 0

    def add(self, output: Output) -> None:
        """Take what the engine says, for a whole reply."""
        completion = self._completions[output["index"]]
        completion.text += output["text"]
        completion.token_ids.extend(output["token_ids"])
        completion.logprobs.extend(build_logprobs(output.get("logprobs", ())))
        if "finish" in output:
            completion.finish_reason = FINISH[output["finish"]]
            self._end(output)

    def build_whole(self) -> inference_pb2.GenerateResponse:
        first = self._completions[0]
        response = inference_pb2.GenerateResponse(
            text=first.text,
            token_ids=first.token_ids,
            finish_reason=first.finish_reason,
            logprobs=first.logprobs,
            completions=self._completions if len(self._completions) > 1 else (),
        )
        return self._signed(response)

    def build_piece(self, output: Output) -> inference_pb2.GenerateStreamResponse | None:
        """Take what the engine says, and return it for a stream; None if it adds nothing."""
        if not (output["text"] or output["token_ids"] or "finish" in output):
            return None
        piece = inference_pb2.GenerateStreamResponse(
            index=output["index"], text=output["text"], token_ids=output["token_ids"]
        )
        if "logprobs" in output:
            piece.logprobs.extend(build_logprobs(output["logprobs"]))
        if "finish" in output:
            piece.finish_reason = FINISH[output["finish"]]
            self._end(output)
        return self._signed(piece) if self.is_complete else piece

    def _end(self, output: Output) -> None:
        self._num_open -= 1
        self.usage.prompt_tokens = output["num_prompt_tokens"]
        self.usage.completion_tokens += output["num_output_tokens"]
        if not output["index"]:
            # What the first completion computes and the others find is no earlier request's.
            self.usage.cached_prompt_tokens = output["num_cached_tokens"]
        # Those of the slowest: it is what the caller waited for.
        self._timings.queue_s = max(self._timings.queue_s, output["queue_s"])
        self._timings.prefill_s = max(self._timings.prefill_s, output["prefill_s"])
        self._timings.decode_s = max(self._timings.decode_s, output["decode_s"])

    def _signed(self, response: Response) -> Response:
        response.usage.CopyFrom(self.usage)
        response.timings.CopyFrom(self._timings)
        response.digest = self._digest
        response.request_id = self._request_id
        return response


def build_logprobs(given: Sequence[Logprob]) -> list[inference_pb2.TokenLogprob]:
    return [
        inference_pb2.TokenLogprob(
            token_id=p["token_id"],
            logprob=p["logprob"],
            top=[inference_pb2.TopToken(token_id=i, logprob=value) for i, value in p["top"]],
        )
        for p in given
    ]


def build_score(output: Output) -> inference_pb2.CompletionScore:
    tokens = build_logprobs(output["logprobs"])
    return inference_pb2.CompletionScore(
        logprob=sum(t.logprob for t in tokens), num_tokens=len(tokens), tokens=tokens
    )
