"""Random token sequences: what comes piece by piece is what decoding the whole gives."""

from functools import cache
from typing import Any

import pytest
import tiny_base
from hypothesis import given, settings
from hypothesis import strategies as st
from loraland_engine.detokenizer import Detokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "naïve café – “quoted” text, 12 € and 3 £",
    "日本語のテキスト。続きがあります。",
    "Привет, мир! Ещё раз привет.",
    "👩‍🚀👩‍🚀 emoji 🎉🎉🎉 and e\u0301 combined",
]


@cache
def merged() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer whose merges end within characters as well as between them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


@cache
def with_byte_fallback() -> PreTrainedTokenizerFast:
    """Return a tokenizer as Llama 2 has it: a mark for spaces, and bytes for rare characters."""
    pieces = ["<unk>", "▁", *[f"<0x{i:02X}>" for i in range(256)], *"abcdehilnortw▁é"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def pieces_of(
    tokenizer: Any, prompt: list[int], output: list[int], stop: tuple[str, ...] = ()
) -> tuple[list[str], bool]:
    detokenizer = Detokenizer(tokenizer, prompt, stop)
    pieces = []
    for token_id in output:
        piece, stopped = detokenizer.add(token_id)
        pieces.append(piece)
        if stopped:
            return pieces, True
    return [*pieces, detokenizer.flush()], False


def decode(tokenizer: Any, token_ids: list[int]) -> str:
    text: str = tokenizer.decode(
        token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


TOKENIZERS = {"bytes": tiny_base.build_tokenizer, "merged": merged}


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_pieces_make_the_whole_for_any_tokens(kind: str, data: st.DataObject) -> None:
    """Even where the tokens are no text: every byte comes out once, and as in the whole."""
    tokenizer = cache(TOKENIZERS[kind])()
    tokens = st.integers(0, len(tokenizer) - 1)
    output = data.draw(st.lists(tokens, max_size=60))

    pieces, _ = pieces_of(tokenizer, [], output)

    assert "".join(pieces) == decode(tokenizer, output)


@pytest.mark.parametrize("build", [merged, with_byte_fallback], ids=["merged", "byte-fallback"])
@settings(max_examples=100, deadline=None)
@given(prompt=st.sampled_from(["", "hello ", "日本", "é"]), text=st.text(max_size=30))
def test_pieces_of_a_text_never_hold_half_a_character(build: Any, prompt: str, text: str) -> None:
    """A text comes out whole after any prompt, without a replacement character on the way."""
    tokenizer = build()
    before = tokenizer.encode(prompt, add_special_tokens=False)
    output = tokenizer.encode(prompt + text, add_special_tokens=False)[len(before) :]
    whole = decode(tokenizer, [*before, *output])

    pieces, _ = pieces_of(tokenizer, before, output)

    assert whole == decode(tokenizer, before) + "".join(pieces)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="abé日👩", max_size=40),
    stop=st.lists(st.text(alphabet="abé日👩", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_pieces_end_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    """No part of a stop string is sent, and nothing before one is lost."""
    tokenizer = merged()
    found = [(text.index(s), s) for s in stop if s in text]
    # The stop string that is complete first ends the text; of several the one that begins first.
    end = min((i + len(s) for i, s in found), default=len(text))
    seen = [i for i, s in found if i + len(s) <= end]

    pieces, stopped = pieces_of(
        tokenizer, [], tokenizer.encode(text, add_special_tokens=False), tuple(stop)
    )

    released = "".join(pieces)
    assert stopped == bool(found)
    assert not stopped or len(released) <= min(seen)
    assert text.startswith(released)
    assert not any(s in released for s in stop)
    assert released == text or stopped
