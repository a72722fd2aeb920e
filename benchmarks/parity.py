"""How far the engine's numbers are from where they should be: `make parity`.

Each line is the largest difference of a logit, as a share of the largest logit, beside its limit: for
a tiny random model of each family at each precision, and for the embedded base model with an adapter
that is trained on the spot. ``parity_reference`` has the models to compare with and says where the
limits come from; ``parity_runs`` the ways in which a request may share the engine with others.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import families
import parity_base
import parity_runs
import tiny_models
from loraland_engine.engine import Engine, EngineConfig
from loraland_models import balancing
from loraland_models.noise import hush
from parity_reference import (
    FLOAT32_LIMIT,
    FLOAT32_LIMIT_BETWEEN,
    NOISE_RATIO,
    Expected,
    Reference,
    gap,
)
from parity_runs import NUM_TOKENS, Answer, Recorder, Request

PRECISIONS = ("float32", "bf16", "fp16", "nf4", "int8")
# Of the embedded base, where nothing else is asked for: the others take minutes each on a CPU.
REAL_PRECISIONS = ("float32", "bf16", "int8")
LIMIT_PERPLEXITY = 0.04
TINY_PROMPTS = [list(b"a prompt"), list(b"another, longer than one step of the engine is"), [120]]
# The third has rank-stabilized scaling, and ranks and alphas of its own for some linears.
TINY_ADAPTERS: tuple[dict[str, Any], ...] = (
    {"rank": 3},
    {"rank": 8},
    {
        "rank": 4, "lora_alpha": 4, "use_rslora": True, "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"q_proj": 1},
    },
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    subject: str
    precision: str
    check: str
    found: float
    limit: float

    @property
    def is_within(self) -> bool:
        return self.found <= self.limit


class Subject:
    """A base model at one precision, adapters for it, and the models to compare with."""

    def __init__(
        self, name: str, precision: str, *, build: Any, tokenizer: Any, adapters: list[Path]
    ) -> None:
        """``build`` returns the base model at a precision, the tokenizer is its own."""
        self.name = name
        self.precision = precision
        self.adapters = adapters
        self._build = build
        self._tokenizer = tokenizer
        # Our own pass rounds adapters over int8; a model's own class leaves them as they are.
        is_fused = name in (*families.FUSED, parity_base.NAME)
        self._reference = Reference(
            build,
            precision,
            balance=lambda model: balancing.balance(model, balancing.samples(tokenizer)),
            rounds_adapters=is_fused,
        )

    def requests(self, prompts: list[list[int]]) -> list[Request]:
        owners = ["", *map(str, self.adapters)]
        return [(owner, prompt) for prompt in prompts for owner in owners]

    def engine(self, **config: Any) -> Engine:
        settings = {
            "max_running": 8, "max_step_tokens": 16, "context_tokens": 192,
            "num_slots": len(self.adapters),
        } | config  # fmt: skip
        engine = Engine(self._build(self.precision), self._tokenizer, EngineConfig(**settings))
        for folder in self.adapters:
            engine.insert_adapter(str(folder), engine.read_adapter(folder))
        return engine

    def expect(self, requests: list[Request], found: list[Answer]) -> list[Expected]:
        """Return what each request's logits should be along its own tokens."""
        expected: dict[int, Expected] = {}
        for adapter in ["", *map(str, self.adapters)]:
            own = [i for i, (owner, _) in enumerate(requests) if owner == adapter]
            parts = self._reference.expect(
                adapter, [requests[i][1] for i in own], [found[i] for i in own]
            )
            expected |= dict(zip(own, parts, strict=True))
        return [expected[i] for i in range(len(requests))]


def compare(subject: Subject, prompts: list[list[int]]) -> Iterator[Line]:
    """Answer the prompts with each adapter and without, in every composition, and compare."""
    requests = subject.requests(prompts)
    mixed = Recorder(subject.engine(prefix_cache=False)).together(requests)
    expected = subject.expect(requests, mixed)
    noise = max(e.noise for e in expected)
    found: list[tuple[str, float, float]] = []
    num_changed = 0
    # Each run may round other values up, and both are as far from float32 as rounding moves them.
    between = FLOAT32_LIMIT_BETWEEN + NOISE_RATIO * noise
    for name, answers in parity_runs.compositions(subject.engine, requests):
        largest = max(map(parity_runs.difference, answers, mixed))
        found.append((f"mixed batch vs {name}", largest, between))
        num_changed += sum(
            parity_runs.is_changed(a, m, tie=2 * NOISE_RATIO * noise)
            for a, m in zip(answers, mixed, strict=True)
        )
    tie = ", ties apart" if noise else ""
    found.append((f"answers of {NUM_TOKENS} tokens that these change{tie}", num_changed, 0))
    is_int8 = subject.precision == "int8"
    found += _to_reference(requests, mixed, expected, noise, is_int8=is_int8)
    yield from (Line(subject.name, subject.precision, *parts) for parts in found)


def _to_reference(
    requests: list[Request],
    answers: list[Answer],
    expected: list[Expected],
    noise: float,
    *,
    is_int8: bool,
) -> Iterator[tuple[str, float, float]]:
    limit = FLOAT32_LIMIT + NOISE_RATIO * noise
    triples = [(r[0], a.logits, e) for r, a, e in zip(requests, answers, expected, strict=True)]
    tuned = [(logits, e) for adapter, logits, e in triples if adapter]
    yield "adapters vs PEFT", max(gap(logits, e.exact) for logits, e in tuned), limit
    yield "adapters vs merged weights", max(gap(logits, e.merged) for logits, e in tuned), limit
    base = [gap(logits, e.exact) for adapter, logits, e in triples if not adapter]
    yield "no adapter vs base model", max(base), limit
    if is_int8:
        rounded = [gap(logits, e.rounded) for _, logits, e in triples if e.rounded is not None]
        yield "all vs the same eight bits in plain torch", max(rounded), limit
    num_other = sum(
        parity_runs.num_other_tokens(a, e.exact, tie=2 * NOISE_RATIO * noise)
        for a, e in zip(answers, expected, strict=True)
    )
    tie = ", ties apart" if noise else ""
    yield f"tokens that PEFT would choose otherwise{tie}", num_other, 0


def tiny_lines(folder: Path, only: "Only") -> Iterator[Line]:
    for family in filter(only.has_subject, families.FAMILIES):

        def build(precision: str, name: str = family) -> Any:
            return families.build(name, precision)

        adapters = [
            families.write_adapter(folder / f"{family}-{i}", build("float32"), **settings)
            for i, settings in enumerate(TINY_ADAPTERS)
        ]
        for precision in filter(only.has_precision, PRECISIONS):
            tokenizer = tiny_models.ByteTokenizer()
            subject = Subject(
                family, precision, build=build, tokenizer=tokenizer, adapters=adapters
            )
            yield from compare(subject, TINY_PROMPTS)


def real_lines(folder: Path, only: "Only") -> Iterator[Line]:
    if not only.has_subject(parity_base.NAME):
        return
    tokenizer = parity_base.tokenizer()
    adapters = [parity_base.train_adapter(folder / "trained", tokenizer)]
    # Of the size that training gives, where random weights' would drown the base.
    adapters.append(
        families.write_adapter(folder / "random", parity_base.load("float32"), rank=3, size=0.02)
    )
    prompts = [tokenizer.encode(text) for text in parity_base.PROMPTS]
    for precision in only.precisions or REAL_PRECISIONS:
        subject = Subject(
            parity_base.NAME, precision, build=parity_base.load, tokenizer=tokenizer,
            adapters=adapters,
        )  # fmt: skip
        yield from compare(subject, prompts)
    if only.has_precision("int8"):
        yield from perplexity_lines(tokenizer, adapters[0])


def perplexity_lines(tokenizer: Any, adapter: Path) -> Iterator[Line]:
    texts = {
        "real text": (parity_base.passages(tokenizer), None),
        "held-out answers of the trained adapter": (parity_base.answers(tokenizer), adapter),
    }
    for name, (pieces, folder) in texts.items():
        exact, rounded = (
            parity_base.perplexity(parity_base.load(precision), tokenizer, pieces, folder)
            for precision in ("float32", "int8")
        )
        check = f"perplexity on {name} over float32's {exact:.3f}"
        yield Line(parity_base.NAME, "int8", check, rounded / exact - 1, LIMIT_PERPLEXITY)


@dataclass(frozen=True)
class Only:
    """What was asked for; empty is everything."""

    subjects: tuple[str, ...]
    precisions: tuple[str, ...]

    def has_subject(self, name: str) -> bool:
        return not self.subjects or name in self.subjects

    def has_precision(self, name: str) -> bool:
        return not self.precisions or name in self.precisions


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    subjects = (*families.FAMILIES, parity_base.NAME)
    parser.add_argument("--json", type=Path, help="write the lines there as well")
    parser.add_argument("--subjects", nargs="+", default=[], choices=subjects)
    parser.add_argument("--precisions", nargs="+", default=[], choices=PRECISIONS)
    return parser.parse_args()


def main() -> None:
    hush()
    options = parse()
    only = Only(tuple(options.subjects), tuple(options.precisions))
    started_s = time.monotonic()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as name:
        parts = [tiny_lines(Path(name), only), real_lines(Path(name), only)]
        for line in itertools.chain.from_iterable(parts):
            lines.append(line)
            verdict = "ok" if line.is_within else "OVER THE LIMIT"
            print(
                f"{line.subject:22} {line.precision:8} {line.check:66}"
                f" {line.found:9.2e}  limit {line.limit:8.1e}  {verdict}",
                flush=True,
            )
    num_over = sum(not line.is_within for line in lines)
    if options.json:
        document = {"num_over": num_over, "lines": [asdict(line) for line in lines]}
        options.json.write_text(json.dumps(document, indent=1))
    seconds = time.monotonic() - started_s
    print(f"{len(lines)} checks, {num_over} over their limits, {seconds:.0f} s")
    sys.exit(1 if num_over else 0)


if __name__ == "__main__":
    main()
