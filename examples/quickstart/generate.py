"""Writes the quickstart's rows: messages to a shop's support desk, each with one line of JSON.

The same seed writes the same files, byte for byte; ``train.jsonl`` and ``evaluation.jsonl`` beside
this script and ``job.yaml`` (the same rows, inline) are its output, committed. Held-out rows ask in
phrasings that no training row uses, about pairs of intent and product that no training row has, and
sometimes about a product that no training row names.

Run: ``python examples/quickstart/generate.py``
"""

import json
import random
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import phrases  # noqa: E402 -- the words lie beside this script, which is no package

SEED = 20260
NUM_TRAIN = 480
NUM_EVALUATION = 64
MAX_MESSAGE_CHARS = 118
TRAIN, HELD_OUT = 0, 1

Row = dict[str, str]


def reserved_pairs(rng: random.Random) -> set[tuple[str, str]]:
    """Choose the pairs of intent and product that only held-out rows may use."""
    pairs = set()
    for intent in phrases.ASKS:
        pairs.update((intent, product) for product in rng.sample(sorted(phrases.PRODUCTS), 8))
    return pairs


def misspell(rng: random.Random, text: str) -> str:
    """Drop, double or swap a letter inside one longer word; slots stay whole."""
    words = text.split(" ")
    candidates = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if not candidates:
        return text
    index = rng.choice(candidates)
    word = words[index]
    at = rng.randrange(1, len(word) - 2)
    words[index] = rng.choice(
        (
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        )
    )
    return " ".join(words)


def written_number(rng: random.Random, number: str) -> str:
    """Write an order number as people do: mostly plain, at times with a dash or a space."""
    style = rng.random()
    if style < 0.1:
        return f"{number[:2]}-{number[2:]}"
    return f"{number[:2]} {number[2:]}" if style < 0.2 else number


def compose(rng: random.Random, ask: str, urgency: str, sentiment: str, *, with_order: bool) -> str:
    """Put the parts of a message in one of the orders that people use; slots stay open."""
    parts = [ask]
    if with_order and "{order}" not in ask:
        parts.append("{aside}")
    if rng.random() < 0.2:
        parts.append(rng.choice(phrases.DISTRACTORS))
    if sentiment:
        parts.insert(rng.choice((0, len(parts))), sentiment)
    if urgency:
        parts.insert(rng.choice((0, len(parts), len(parts))), urgency)
    if rng.random() < 0.4:
        parts.insert(0, rng.choice(phrases.GREETINGS))
    return " ".join(parts)


def answer(intent: str, product: str, order: str | None, urgency: str, sentiment: str) -> str:
    """Write the line of JSON that a perfect model answers."""
    fields = {
        "intent": intent,
        "product": product,
        "order": order,
        "urgency": urgency,
        "sentiment": sentiment,
    }
    return json.dumps(fields, separators=(",", ":"))


def build_row(
    rng: random.Random, split: int, intent: str, product: str, names: tuple[str, ...]
) -> Row:
    """Write one message about ``product``, and its answer."""
    ask = rng.choice(phrases.ASKS[intent][split])
    urgency = rng.choices(("high", "low", "normal"), (4, 4, 3))[0]
    sentiment = rng.choices(("negative", "positive", "neutral"), (4, 4, 3))[0]
    order_chance = 0.15 if intent == "stock" else 0.55
    has_order = "{order}" in ask or rng.random() < order_chance
    number = f"{rng.randrange(10_000, 100_000)}"
    written = written_number(rng, number)
    text = compose(
        rng,
        ask,
        rng.choice(phrases.URGENCY[urgency][split if rng.random() < 0.5 else TRAIN]),
        rng.choice(phrases.SENTIMENT[sentiment][split if rng.random() < 0.5 else TRAIN]),
        with_order=has_order,
    )
    if rng.random() < 0.25:
        text = misspell(rng, text)
    text = text.replace("{product}", rng.choice(names))
    text = text.replace("{order}", rng.choice(phrases.ORDER_PHRASES).format(n=written))
    text = text.replace("{aside}", rng.choice(phrases.ORDER_ASIDES).format(n=written))
    text = text.lower() if rng.random() < 0.15 else text[0].upper() + text[1:]
    order = number if has_order else None
    return {"message": text, "answer": answer(intent, product, order, urgency, sentiment)}


def pick_product(
    rng: random.Random, split: int, intent: str, pairs: set[tuple[str, str]]
) -> tuple[str, tuple[str, ...]]:
    """Choose a product that this split may pair with ``intent``, and what customers call it."""
    if split == HELD_OUT and rng.random() < 0.2:
        product = rng.choice(sorted(phrases.UNSEEN_PRODUCTS))
        return product, phrases.UNSEEN_PRODUCTS[product]
    allowed = [p for p in sorted(phrases.PRODUCTS) if ((intent, p) in pairs) == (split == HELD_OUT)]
    product = rng.choice(allowed)
    return product, phrases.PRODUCTS[product]


def build_split(
    rng: random.Random, split: int, size: int, pairs: set[tuple[str, str]]
) -> list[Row]:
    """Write ``size`` rows with distinct messages, intents in turn."""
    intents = sorted(phrases.ASKS)
    rows: dict[str, Row] = {}
    while len(rows) < size:
        intent = intents[len(rows) % len(intents)]
        product, names = pick_product(rng, split, intent, pairs)
        row = build_row(rng, split, intent, product, names)
        if len(row["message"]) <= MAX_MESSAGE_CHARS:
            rows.setdefault(row["message"], row)
    shuffled = list(rows.values())
    rng.shuffle(shuffled)
    return shuffled


def build_dataset() -> tuple[list[Row], list[Row]]:
    """Return the training rows and the held-out rows."""
    rng = random.Random(SEED)  # noqa: S311 -- reproducible rows, no secret
    pairs = reserved_pairs(rng)
    return (
        build_split(rng, TRAIN, NUM_TRAIN, pairs),
        build_split(rng, HELD_OUT, NUM_EVALUATION, pairs),
    )


def lines(rows: list[Row]) -> str:
    """Format rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def job(train: list[Row], evaluation: list[Row]) -> str:
    """Format the FineTuneJob, rows inline: one file is all that ``kubectl apply`` needs."""
    indent = " " * 8
    head = (HERE / "job.head.txt").read_text(encoding="utf-8")
    return (
        f"{head}    inline:\n"
        f"      rows: |\n{textwrap.indent(lines(train), indent)}"
        f"      evaluationRows: |\n{textwrap.indent(lines(evaluation), indent)}"
    )


def main() -> None:
    """Write the files beside this script."""
    train, evaluation = build_dataset()
    (HERE / "job.yaml").write_text(job(train, evaluation), encoding="utf-8")
    (HERE / "train.jsonl").write_text(lines(train), encoding="utf-8")
    (HERE / "evaluation.jsonl").write_text(lines(evaluation), encoding="utf-8")


if __name__ == "__main__":
    main()
