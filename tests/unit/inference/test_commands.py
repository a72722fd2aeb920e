"""Commands without an answer: how long the engine has been silent about them."""

import asyncio

import pytest
from loraland_core.errors import Unavailable
from loraland_inference.commands import Commands


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_nothing_asked_is_no_silence(clock: Clock) -> None:
    """An idle engine may be silent for ever."""
    commands = Commands(clock)
    commands.ask("load", "a")
    commands.answer("a", {})
    clock.now_s = 100.0

    assert commands.silence_s() == 0.0


async def test_answers_of_the_same_kind_alone_break_the_silence(clock: Clock) -> None:
    """Eight slow loads in a row are no hang; a hanging load is one, whatever is tokenized."""
    commands = Commands(clock)
    for key in "ab":
        commands.ask("load", key)
    found = []
    for now_s, kind, key in ((10.0, "load", "a"), (15.0, "tokenize", "t")):
        clock.now_s = now_s
        if kind == "tokenize":
            commands.ask(kind, key)
        commands.answer(key, {})
        found.append(commands.silence_s())

    assert found == [0.0, 5.0]


async def test_command_stays_when_its_caller_goes(clock: Clock) -> None:
    """The engine is at it still; its answer is nobody's."""
    commands = Commands(clock)
    commands.ask("load", "a").cancel()
    clock.now_s = 7.0
    before = commands.silence_s()
    commands.answer("a", {})

    assert (before, commands.silence_s()) == (7.0, 0.0)


async def test_failure_answers_all(clock: Clock) -> None:
    """Nobody waits for an engine that has gone."""
    commands = Commands(clock)
    replies = [commands.ask(kind, kind) for kind in ("load", "tokenize")]
    commands.fail(Unavailable("gone"))

    found = await asyncio.gather(*replies, return_exceptions=True)

    assert [type(error) for error in found] == [Unavailable] * 2


async def test_expected_answer_is_owed_although_nobody_waits_for_it(clock: Clock) -> None:
    """A request's caller waits for its tokens; that it was read is the watchdog's to know."""
    commands = Commands(clock)
    commands.expect("tokenize", "r")
    clock.now_s = 7.0
    before = commands.silence_s()
    commands.fail(Unavailable("gone"))

    assert (before, commands.silence_s()) == (7.0, 0.0)
