"""How far the engine's numbers are from where they should be: `make parity`.

Each line is the largest difference of a logit, as a share of the largest logit, beside its limit: for
a tiny random model of each family, and for the embedded base model. The
references are Transformers and PEFT at float32 (for 4 bits: over the same 4-bit weights).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import families
import parity_base
import tiny_models
import torch
from loraland_engine.engine import Engine, EngineConfig
from loraland_engine.sequence import SamplingParams
from peft import PeftModel
from torch import Tensor

NUM_TOKENS = 64
RANKS = (3, 8)
# Shares of the largest logit. Against float32, 16 and 8 bits show their own rounding, which random
# weights pass on undamped (what it costs in real weights is the perplexity's to say). Between two
# runs of one precision only the order of sums differs; that may move a value over a rounding step.
LIMITS_TO_REFERENCE = {"float32": 1e-4, "bf16": 0.1, "int8": 0.2, "nf4": 1e-3}
LIMITS_BETWEEN_RUNS = {"float32": 1e-5, "bf16": 0.03, "int8": 0.02, "nf4": 1e-4}
LIMIT_PERPLEXITY = 0.04


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


@dataclass(frozen=True)
class Answer:
    """Greedy tokens and the logits [N, V] that they were chosen from."""

    token_ids: tuple[int, ...]
    logits: Tensor


class Subject:
    """A base model at one precision, two adapters for it, and the float models to compare with."""

    def __init__(
        self,
        name: str,
        precision: str,
        *,
        build: Any,
        tokenizer: Any,
        folder: Path,
        adapter_size: float = 0.1,
    ) -> None:
        self.name = name
        self.precision = precision
        self._build = build
        self._tokenizer = tokenizer
        self.adapters: list[Path] = []
        for rank in RANKS:
            path = folder / f"{name}-{rank}"
            if not path.exists():
                families.write_adapter(path, build("float32"), rank=rank, size=adapter_size)
            self.adapters.append(path)

    def requests(self, prompts: list[list[int]]) -> list[tuple[str, list[int]]]:
        owners = ["", *map(str, self.adapters)]
        return [(owner, prompt) for prompt in prompts for owner in owners]

    def engine(self, **config: Any) -> Engine:
        settings = {"max_running": 8, "context_tokens": 192, "num_slots": 2} | config
        engine = Engine(self._build(self.precision), self._tokenizer, EngineConfig(**settings))
        for folder in self.adapters:
            engine.insert_adapter(str(folder), engine.read_adapter(folder))
        return engine

    def reference(self, adapter: str, *, is_merged: bool = False) -> Any:
        model = self._build("nf4" if self.precision == "nf4" else "float32")
        if not adapter:
            return model
        wrapped = PeftModel.from_pretrained(model, adapter).eval()
        return wrapped.merge_and_unload() if is_merged else wrapped


def answers(
    engine: Engine, requests: list[tuple[str, list[int]]], *, together: bool
) -> list[Answer]:
    """Answer greedily, all in one batch or each alone, and keep the logits."""
    token_ids: dict[str, list[int]] = {}
    logits: dict[str, list[Tensor]] = {}
    run = engine._runner.run

    def record(chunks: Any) -> Any:
        found = run(chunks)
        for request_id, rows in found.items():
            logits.setdefault(request_id, []).append(rows[-1].float())
        return found

    engine._runner.run = record  # type: ignore[method-assign]
    params = SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True)
    for index, (adapter, prompt) in enumerate(requests):
        engine.submit(str(index), prompt, params, adapter_id=adapter)
        if not together:
            _finish(engine, token_ids)
    _finish(engine, token_ids)
    engine._runner.run = run  # type: ignore[method-assign]
    return [
        Answer(tuple(token_ids[str(i)]), torch.stack(logits[str(i)])) for i in range(len(requests))
    ]


def _finish(engine: Engine, token_ids: dict[str, list[int]]) -> None:
    while engine.has_work():
        for output in engine.step():
            token_ids.setdefault(output.request_id, []).extend(output.token_ids)


def difference(found: Answer, expected: Answer) -> float:
    """Return the largest difference up to the first token that differs, as a share."""
    pairs = zip(found.token_ids, expected.token_ids, strict=True)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(found.token_ids))
    end = min(same + 1, len(found.logits))
    gap = (found.logits[:end] - expected.logits[:end]).abs().max()
    return float(gap / expected.logits.abs().max())


def forced(model: Any, prompt: list[int], token_ids: tuple[int, ...]) -> Answer:
    """Return the reference's logits along the engine's own tokens, and what it would have chosen."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *token_ids[:-1]]])).logits[0].float()
    wanted = logits[len(prompt) - 1 :]
    return Answer(tuple(int(i) for i in wanted.argmax(-1)), wanted)


def compare(subject: Subject, prompts: list[list[int]]) -> Iterator[Line]:
    requests = subject.requests(prompts)
    engine = subject.engine(max_step_tokens=16)
    mixed = answers(engine, requests, together=True)
    alone = answers(engine, requests, together=False)
    whole = answers(subject.engine(max_step_tokens=512), requests, together=True)
    between, limit = LIMITS_BETWEEN_RUNS[subject.precision], LIMITS_TO_REFERENCE[subject.precision]

    def line(check: str, found: list[float], limit: float) -> Line:
        return Line(subject.name, subject.precision, check, max(found), limit)

    yield line("mixed batch vs alone", list(map(difference, mixed, alone)), between)
    yield line("chunks of 16 vs whole prompts", list(map(difference, mixed, whole)), between)
    if subject.precision in ("float32", "nf4"):
        moved = [a.token_ids != b.token_ids for a, b in zip(mixed, alone, strict=True)]
        yield line(f"requests whose {NUM_TOKENS} tokens differ, mixed or alone", [sum(moved)], 0)
    for merged, check in ((False, "adapters vs PEFT"), (True, "adapters vs merged weights")):
        if merged and subject.precision == "nf4":
            continue
        yield line(check, _to_reference(subject, requests, mixed, is_merged=merged), limit)
    bases = [i for i, (adapter, _) in enumerate(requests) if not adapter]
    base_requests, base_answers = [requests[i] for i in bases], [mixed[i] for i in bases]
    yield line(
        "no adapter vs base model", _to_reference(subject, base_requests, base_answers), limit
    )
    if subject.precision in ("float32", "nf4"):
        yield line(
            f"tokens of {NUM_TOKENS} that PEFT would choose otherwise",
            [float(_num_other(subject, requests, mixed))], 0,
        )  # fmt: skip


def _to_reference(
    subject: Subject,
    requests: list[tuple[str, list[int]]],
    found: list[Answer],
    *,
    is_merged: bool = False,
) -> list[float]:
    gaps = []
    for adapter in sorted({adapter for adapter, _ in requests}):
        model = subject.reference(adapter, is_merged=is_merged)
        for (owner, prompt), answer in zip(requests, found, strict=True):
            if owner == adapter:
                expected = forced(model, prompt, answer.token_ids).logits
                gap = (answer.logits - expected).abs().max() / expected.abs().max()
                gaps.append(float(gap))
    return gaps


def _num_other(subject: Subject, requests: list[tuple[str, list[int]]], found: list[Answer]) -> int:
    total = 0
    for adapter in sorted({adapter for adapter, _ in requests}):
        model = subject.reference(adapter)
        for (owner, prompt), answer in zip(requests, found, strict=True):
            if owner == adapter:
                expected = forced(model, prompt, answer.token_ids)
                total += sum(map(int.__ne__, expected.token_ids, answer.token_ids))
    return total


def tiny_lines(folder: Path) -> Iterator[Line]:
    prompts = [list(b"a prompt"), list(b"another, longer than one step of the engine is"), [120]]
    for family in families.FAMILIES:
        for precision in ("float32", "bf16", "int8"):

            def build(p: str, name: str = family) -> Any:
                return families.build(name, p)

            tokenizer = tiny_models.ByteTokenizer()
            subject = Subject(family, precision, build=build, tokenizer=tokenizer, folder=folder)
            yield from compare(subject, prompts)


def real_lines(folder: Path) -> Iterator[Line]:
    tokenizer = parity_base.tokenizer()
    prompts = [tokenizer.encode(text) for text in ("The capital of France is", "def add(a, b):")]
    for precision in ("float32", "int8"):
        subject = Subject(
            parity_base.NAME,
            precision,
            build=parity_base.load,
            tokenizer=tokenizer,
            folder=folder,
            # Of the size that training gives, where random weights' would drown the base.
            adapter_size=0.02,
        )
        yield from compare(subject, prompts)
    reference = parity_base.perplexity(parity_base.load("float32"), tokenizer)
    rise = parity_base.perplexity(parity_base.load("int8"), tokenizer) / reference - 1
    check = f"perplexity over float32's {reference:.2f}"
    yield Line(parity_base.NAME, "int8", check, rise, LIMIT_PERPLEXITY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the lines there as well")
    parser.add_argument("--tiny", action="store_true", help="leave the embedded base model out")
    options = parser.parse_args()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as name:
        parts = [tiny_lines(Path(name))] + ([] if options.tiny else [real_lines(Path(name))])
        for line in (line for part in parts for line in part):
            lines.append(line)
            verdict = "ok" if line.is_within else "OVER THE LIMIT"
            print(
                f"{line.subject:22} {line.precision:8} {line.check:48}"
                f" {line.found:9.2e}  limit {line.limit:7.0e}  {verdict}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"lines": [asdict(line) for line in lines]}, indent=1))
    num_over = sum(not line.is_within for line in lines)
    print(f"{len(lines)} checks, {num_over} over their limits")
    sys.exit(1 if num_over else 0)


if __name__ == "__main__":
    main()
