"""Callers of a world in which things break, and what each of their requests came to.

Every request must have exactly one outcome within its deadline, and an answer must be the right one:
what an artifact says to a prompt is known from before anything broke.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from chaos_world import Adapter, World
from loraland_client import CallFailed, Client
from replicas import TOKEN

NUM_CALLERS = 6
PROMPTS = ("hello", "a second prompt, somewhat longer", "x")
LENGTHS = (4, 12, 24)
TIMEOUT_S = 30.0
# A request that says nothing for so long after its deadline has no outcome.
SLACK_S = 10.0
# How long a replica may still serve, or not yet serve, what changed: Redis may be away meanwhile.
LAG_S = 30.0
MAY_FAIL = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
# Below this difference of log-probabilities the order of two tokens is chance.
TIE = 1e-3

Key = tuple[str, str]


@dataclass(frozen=True)
class Outcome:
    """What one request came to: ``code`` is OK or a status."""

    adapter: str
    code: str
    digest: str = ""
    token_ids: tuple[int, ...] = ()
    num_ends: int = 0
    message: str = ""


class Load:
    """Asks until told to stop; ``violations`` says what was not as it must be."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)  # noqa: S311 (a simulation of callers)
        self._weights = [1 / rank for rank in range(1, len(world.adapters) + 1)]
        self._known: dict[Key, tuple[int, ...]] = {}
        self.violations: list[str] = []
        self.codes: Counter[str] = Counter()
        self.num_asked = 0

    async def learn(self) -> None:
        """Ask for everything once, while all is well."""
        async with Client(self._world.addresses[0], TOKEN) as client:
            for version in (1, 0):
                for adapter in self._world.adapters:
                    self._world.publish(adapter, version)
                await asyncio.to_thread(self._world.settle)
                for adapter, prompt in itertools.product(self._world.adapters, PROMPTS):
                    answer = await client.generate(
                        prompt=prompt, adapter=adapter.name, max_tokens=max(LENGTHS),
                        ignore_eos=True, logprobs=2,
                    )  # fmt: skip
                    clear = itertools.takewhile(_is_clear, answer.logprobs)
                    self._known[answer.digest, prompt] = tuple(t.token_id for t in clear)

    async def run(self, stop: asyncio.Event) -> None:
        async with Client(self._world.addresses, TOKEN, timeout_s=TIMEOUT_S) as client:
            await asyncio.gather(*(self._call(client, stop) for _ in range(NUM_CALLERS)))

    async def check_all(self) -> None:
        """Ask each replica for each adapter: all is well again, so that each must answer."""
        for address in self._world.addresses:
            async with Client(address, TOKEN, timeout_s=TIMEOUT_S, max_attempts=9) as client:
                for adapter, prompt in itertools.product(self._world.adapters, PROMPTS):
                    request = _request(adapter, prompt, max(LENGTHS))
                    outcome = await self._ask(client, request, is_stream=False)
                    expected = "OK" if adapter.current >= 0 else "NOT_FOUND"
                    if outcome.code != expected:
                        self._object(outcome, f"after all was whole again, from {address}")
                    elif adapter.current >= 0:
                        if outcome.digest != adapter.digests[adapter.current]:
                            self._object(outcome, f"an old digest, from {address}")
                        self._check_answer(outcome, prompt, max(LENGTHS))

    async def _call(self, client: Client, stop: asyncio.Event) -> None:
        while not stop.is_set():
            adapter = self._random.choices(self._world.adapters, self._weights)[0]
            prompt, length = self._random.choice(PROMPTS), self._random.choice(LENGTHS)
            is_stream = self._random.random() < 0.5
            self.num_asked += 1
            started_s = time.monotonic()
            outcome = await self._ask(client, _request(adapter, prompt, length), is_stream)
            self.codes[outcome.code] += 1
            self._check(outcome, adapter, started_s)
            if outcome.code == "OK":
                self._check_answer(outcome, prompt, length)
            else:
                await asyncio.sleep(0.1)

    async def _ask(self, client: Client, request: dict[str, Any], is_stream: bool) -> Outcome:
        name = request["adapter"]
        try:
            async with asyncio.timeout(TIMEOUT_S + SLACK_S):
                if is_stream:
                    pieces = [piece async for piece in client.stream(**request)]
                else:
                    pieces = [await client.generate(**request)]
        except CallFailed as failure:
            return Outcome(name, failure.code.name, message=failure.message)
        except TimeoutError:
            return Outcome(name, "NONE", message="no outcome")
        return Outcome(
            name, "OK", pieces[-1].digest, tuple(t for p in pieces for t in p.token_ids),
            sum(bool(p.finish_reason) for p in pieces),
        )  # fmt: skip

    def _check(self, outcome: Outcome, adapter: Adapter, started_s: float) -> None:
        if outcome.code == "OK":
            if outcome.digest not in adapter.digests:
                self._object(outcome, "a digest of another adapter")
        elif outcome.code == "NOT_FOUND":
            if adapter.current >= 0 and adapter.changed_s < started_s - LAG_S:
                self._object(outcome, "not found, though it was published all the time")
        elif outcome.code not in MAY_FAIL:
            self._object(outcome, "an outcome that no fault excuses")

    def _check_answer(self, outcome: Outcome, prompt: str, length: int) -> None:
        known = self._known[outcome.digest, prompt][:length]
        if outcome.num_ends != 1:
            self._object(outcome, f"{outcome.num_ends} ends")
        if len(outcome.token_ids) != length:
            self._object(outcome, f"{len(outcome.token_ids)} tokens instead of {length}")
        if outcome.token_ids[: len(known)] != known:
            self._object(outcome, "another answer than the artifact's own")

    def _object(self, outcome: Outcome, what: str) -> None:
        digest = outcome.digest[:12]
        self.violations.append(
            f"{outcome.adapter} {digest} {outcome.code}: {what} {outcome.message}"
        )


def _request(adapter: Adapter, prompt: str, length: int) -> dict[str, Any]:
    return {
        "adapter": adapter.name,
        "prompt": prompt,
        "max_tokens": length,
        "ignore_eos": True,
    }


def _is_clear(token: Any) -> bool:
    (_, first), (_, second) = token.top[:2]
    return bool(first - second > TIE)
