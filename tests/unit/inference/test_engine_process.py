"""The engine process's threads: one bad request is refused, and the next one is read."""

import io
import os
from dataclasses import fields
from typing import Any, cast

import pytest
from loraland_core.errors import InvalidInput
from loraland_engine.sequence import FinishReason, Output
from loraland_engine.stats import EngineStats
from loraland_inference import engine_process, messages
from loraland_inference.engine_process import EngineLoop, Reader
from loraland_inference.preparation import Prepared


class FakeEngine:
    """A tokenizer's owner that loads nothing."""

    tokenizer = None
    vocabulary_size = 2
    eos_token_ids = (1,)


class FakePreparer:
    """Raises what its input names."""

    def __init__(self, *_: Any) -> None:
        pass

    def tokens(self, given: messages.Input) -> list[int]:
        match given["text"]:
            case "deep":
                raise RecursionError("maximum recursion depth exceeded")
            case "wrong":
                raise InvalidInput("is wrong", field="input")
        return [7]


def test_reader_outlives_what_a_request_makes_a_library_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each request gets its own answer, and the end of the pipe ends the process."""
    monkeypatch.setattr(engine_process, "Preparer", FakePreparer)
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    sent: list[messages.Message] = []
    asked = [
        {"type": "tokenize", "id": text, "input": {"text": text}}
        for text in ("deep", "wrong", "good")
    ]
    lines = io.BytesIO(b"".join(messages.encode(message) for message in asked))
    engine = cast("Any", FakeEngine())

    Reader(lines, EngineLoop(engine, sent.append), cast("Any", None), engine).run()

    assert [(m["type"], m["id"], m.get("reason")) for m in sent] == [
        ("refused", "deep", "Unprepared"),
        ("refused", "wrong", "InvalidSpec"),
        ("tokens", "good", None),
    ]
    assert ended == [0]


class Stopped(Exception):
    """Ends the loop of a test."""


class BrokenEngine:
    """Raises at what its first token names; keeps the rest, and fails one of it in its step."""

    def __init__(self) -> None:
        self.submitted: list[str] = []
        self.num_steps = 0

    def now_s(self) -> float:
        return 0.0

    def has_work(self) -> bool:
        return bool(self.submitted)

    def submit(self, request_id: str, token_ids: list[int], *_: Any, **__: Any) -> None:
        if token_ids == [0]:
            raise ZeroDivisionError("secret")
        self.submitted.append(request_id)

    submit_score = submit

    def step(self) -> list[Output]:
        self.num_steps += 1
        if self.num_steps > 1:
            raise Stopped
        failure = KeyError("secret")
        return [Output(self.submitted[0], finish_reason=FinishReason.FAILED, failure=failure)]

    def stats(self) -> EngineStats:
        return EngineStats(*[0] * len(fields(EngineStats)))


def test_loop_refuses_a_request_that_breaks_the_engine_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The traceback is in the log under the request's id, and nothing of it goes to the caller."""
    sent: list[messages.Message] = []
    loop = EngineLoop(cast("Any", BrokenEngine()), sent.append)
    caller = {"tenant": "t", "weight": 1.0, "priority": 0}
    for kind, name, token in (("generate", "a", 0), ("score", "b", 0), ("generate", "c", 1)):
        message = {"id": name, "adapter": "", "caller": caller, "deadline_in_s": 1.0}
        loop.post((kind, message, Prepared([token])))

    with pytest.raises(Stopped):
        loop.run()

    said = [(m["type"], m.get("id"), m.get("reason")) for m in sent]
    assert said == [
        ("refused", "a", "Internal"),
        ("refused", "b", "Internal"),
        ("step", None, None),
    ]
    assert [(o["id"], o["finish"]) for o in sent[-1]["outputs"]] == [("c", "failed")]
    assert [r.getMessage() for r in caplog.records if r.exc_info] == [
        "request a cannot be begun", "request b cannot be begun", "request c failed",
    ]  # fmt: skip
    assert "secret" not in str(sent)


def test_loop_ends_where_a_slot_is_in_doubt() -> None:
    """An adapter that is half in a slot would answer wrongly: the process ends instead."""
    loop = EngineLoop(cast("Any", BrokenEngine()), lambda _: None)
    loop.post(("insert", {"digest": "d"}, None))

    with pytest.raises(AttributeError):
        loop.run()
