"""Sampling, forms and scores through a real replica: what comes back over gRPC for each of them."""

import json
import math
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import grpc
import pytest
import replicas
import servers
from loraland_client import CallFailed
from loraland_core.store import Store, StoreConfig
from replicas import Land, Replica

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["red", "blue"]}},
    "required": ["ok", "kind"],
    "additionalProperties": False,
}
DRAWN: dict[str, Any] = {"max_tokens": 12, "temperature": 1.0, "seed": 5, "ignore_eos": True}


@pytest.fixture(scope="module")
def replica(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica with one adapter."""
    folder = tmp_path_factory.mktemp("land")
    config = StoreConfig(bucket=f"land-{uuid.uuid4().hex[:8]}", prefix="p", endpoint_url=s3_url)
    client = boto3.session.Session().client(
        "s3", endpoint_url=s3_url, region_name="us-east-1", **servers.S3_CREDENTIALS
    )
    client.create_bucket(Bucket=config.bucket)
    client.close()
    base_folder, revision = replicas.build_base(folder)
    port = servers.free_port()
    store = Store(config, credentials=dict(servers.S3_CREDENTIALS))
    with servers.redis_process(port):
        land = Land(folder, store, f"redis://127.0.0.1:{port}/0", base_folder, revision)
        land.add("default/one", seed=1)
        land.complete()
        with replicas.running(land, config) as running:
            replicas.wait_for(land.is_applied)
            yield running
    store.close()


@pytest.mark.parametrize("adapter", ["", "default/one"])
async def test_answers_have_their_forms(replica: Replica, adapter: str) -> None:
    """A random model writes JSON of a schema, digits, and one of two words."""
    more: dict[str, Any] = {"prompt": "hi", "adapter": adapter, "max_tokens": 200}
    async with replica.client() as client:
        as_json = await client.generate(json_schema=SCHEMA, **more)
        digits = await client.generate(regex="[0-9]{3}", **more)
        word = await client.generate(choice=["yes", "no"], temperature=1.0, **more)

    answer = json.loads(as_json.text)
    assert (set(answer), answer["kind"] in ("red", "blue")) == ({"ok", "kind"}, True)
    assert (len(digits.text), digits.text.isdigit()) == (3, True)
    assert word.text in ("yes", "no")
    assert {as_json.finish_reason, digits.finish_reason, word.finish_reason} == {"stop"}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"json_schema": "{"}, "sampling.constraint.json_schema"),
        ({"json_schema": {"type": "foo"}}, "sampling.constraint.json_schema"),
        ({"regex": "[0-9"}, "sampling.constraint.regex"),
        ({"choice": [""]}, "sampling.constraint.choice"),
        ({"regex": "a", "ignore_eos": True}, "sampling.ignore_eos"),
        ({"n": 99}, "sampling.n"),
        ({"logprobs": 99}, "sampling.logprobs"),
    ],
    ids=["no-json", "no-schema", "no-regex", "no-choice", "ignore-eos", "n", "logprobs"],
)
async def test_bad_sampling_is_told_by_its_field(
    replica: Replica, request_: dict[str, Any], field: str
) -> None:
    """Whether the front or the grammar library finds it."""
    async with replica.client(max_attempts=1) as client:
        with pytest.raises(CallFailed) as caught:
            await client.generate(prompt="hi", **request_)

    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details.field == field


async def test_n_completions_come_whole_and_as_a_stream(replica: Replica) -> None:
    """The same three by seed, told apart by index; usage counts them together."""
    async with replica.client() as client:
        whole = await client.generate(prompt="hello", n=3, **DRAWN)
        pieces = [p async for p in client.stream(prompt="hello", n=3, **DRAWN)]

    streamed = [[t for p in pieces if p.index == i for t in p.token_ids] for i in range(3)]
    assert streamed == [list(c.token_ids) for c in whole.completions]
    assert len({c.token_ids for c in whole.completions}) == 3
    assert (whole.token_ids, whole.completion_tokens) == (whole.completions[0].token_ids, 36)
    assert sorted(p.index for p in pieces if p.finish_reason) == [0, 1, 2]
    assert [p.completion_tokens for p in pieces if p.completion_tokens] == [36]


async def test_logprobs_of_an_answer_are_the_scores_of_its_text(replica: Replica) -> None:
    """Scoring the generated text gives what was reported while it was drawn."""
    options: dict[str, Any] = {"choice": ["abc", "xyz"], "temperature": 1.0, "seed": 2}
    async with replica.client() as client:
        answer = await client.generate(prompt="hello", logprobs=1, **options)
        (score,) = await client.score([answer.text], prompt="hello")

    assert [p.token_id for p in answer.logprobs] == list(answer.token_ids)
    assert [p.logprob for p in answer.logprobs] == pytest.approx(
        [t.logprob for t in score.tokens], abs=1e-4
    )
    assert all(len(p.top) == 1 for p in answer.logprobs)


async def test_classify_compares_labels(replica: Replica) -> None:
    """Each label's probability among the labels, from the scores of all of them."""
    labels = ["red", "green", "a longer one"]
    async with replica.client() as client:
        scores = await client.score(labels, prompt="hello", adapter="default/one")
        found = await client.classify(labels, prompt="hello", adapter="default/one")

    total = sum(math.exp(s.logprob) for s in scores)
    expected = {label: math.exp(s.logprob) / total for label, s in zip(labels, scores, strict=True)}
    assert found == pytest.approx(expected)
    assert [len(s.tokens) for s in scores] == [3, 5, 12]
