"""Text as it comes: whole characters, and never a part of a stop string."""

import pytest
from loraland_engine.detokenizer import Detokenizer
from tiny_models import ByteTokenizer


def feed(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """Return what each byte released, and whether a stop string ended it."""
    detokenizer = Detokenizer(ByteTokenizer(), [], stop)
    released = []
    for byte in text.encode():
        piece, stopped = detokenizer.add(byte)
        released.append(piece)
        if stopped:
            return released, True
    return [*released, detokenizer.flush()], False


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語テキスト", "👩‍🚀 x", "e\u0301"])
def test_detokenizer_releases_whole_characters_only(text: str) -> None:
    """No piece holds half a character, and together they are the text."""
    pieces, stopped = feed(text)

    assert not any("\ufffd" in piece for piece in pieces)
    assert ("".join(pieces), stopped) == (text, False)


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("hello END there", ("END",), ("hello ", True)),
        ("aaab", ("aab",), ("a", True)),
        ("no stop here", ("stopped",), ("no stop here", False)),
        ("first; second", ("second", ";"), ("first", True)),
        ("ends on EN", ("END",), ("ends on EN", False)),
        ("日本語。続き", ("。",), ("日本語", True)),
    ],
    ids=["plain", "overlap", "absent", "earliest", "partial-at-the-end", "multibyte"],
)
def test_detokenizer_ends_before_a_stop_string(
    text: str, stop: tuple[str, ...], expected: tuple[str, bool]
) -> None:
    """The text ends before the earliest stop string; what merely looked like one comes out."""
    pieces, stopped = feed(text, stop)

    assert ("".join(pieces), stopped) == expected


def test_detokenizer_never_releases_the_beginning_of_a_stop_string() -> None:
    """What may become a stop string is held until it is decided."""
    pieces, _ = feed("abSTOP", ("STOP",))

    assert pieces == ["a", "b", "", "", "", ""]


def test_flush_releases_bytes_that_never_became_a_character() -> None:
    """At the end an incomplete character is shown as what it is."""
    detokenizer = Detokenizer(ByteTokenizer(), [], ())

    piece, _ = detokenizer.add("é".encode()[0])

    assert (piece, detokenizer.flush()) == ("", "\ufffd")
