"""Asks base model and adapter over gRPC, both in flight together. The demo's only client of theirs."""

import asyncio
import time
from collections.abc import Callable, Sequence

from loraland_client import Client

from loraland_cli.demo.comparison import Answer
from loraland_cli.demo.questions import Question

OnAnswer = Callable[[], None]


async def ask_all(
    client: Client,
    questions: Sequence[Question],
    *,
    adapter: str,
    max_tokens: int,
    on_answer: OnAnswer,
) -> list[tuple[Answer, Answer]]:
    """Return (base, tuned) for each question; the two requests of a question run side by side."""
    answers = []
    for question in questions:
        # The adapter gets the columns and writes the prompt with its own template; the base model
        # has no template, so it gets the same prompt written out.
        base = _ask(client, adapter="", prompt=question.prompt, max_tokens=max_tokens)
        tuned = _ask(client, adapter=adapter, fields=question.fields, max_tokens=max_tokens)
        base_answer, tuned_answer = await asyncio.gather(base, tuned)
        answers.append((base_answer, tuned_answer))
        on_answer()
    return answers


async def _ask(
    client: Client,
    *,
    adapter: str,
    max_tokens: int,
    prompt: str | None = None,
    fields: dict[str, str] | None = None,
) -> Answer:
    started = time.monotonic()
    first: float | None = None
    texts, digest = [], ""
    async for chunk in client.stream(
        adapter=adapter, prompt=prompt, fields=fields, max_tokens=max_tokens
    ):
        first = first or time.monotonic()
        texts.append(chunk.text)
        digest = chunk.digest or digest
    ended = time.monotonic()
    return Answer(
        text="".join(texts),
        ttft_s=(first or ended) - started,
        total_s=ended - started,
        digest=digest,
    )
