"""Pass@1: the share of answers that, put into their row's program, run to its end in the sandbox."""

import logging
import re
from collections.abc import Sequence

from loraland_core.errors import InvalidInput

from loraland_trainer import sandbox

log = logging.getLogger(__name__)
# Where an example's program has the answer; no source text may hold it.
ANSWER = "\0"
# Enough to see that the template fits the rows; every one would double the time.
REFERENCES_TRIED = 4
_FENCED = re.compile(r"```[A-Za-z0-9]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def pass_at_1(answers: Sequence[str], programs: Sequence[str]) -> float:
    """Return the share of answers whose program passes."""
    outcomes = [
        sandbox.run(fill(program, answer))
        for answer, program in zip(answers, programs, strict=True)
    ]
    for outcome in [o for o in outcomes if not o.passed][:1]:
        log.info("for example, a program that failed: %s", _last_line(outcome.error))
    return sum(outcome.passed for outcome in outcomes) / len(outcomes)


def fill(program: str, answer: str) -> str:
    """Return the program with the answer in it; of an answer with a code block, only that block."""
    fenced = _FENCED.search(answer)
    code = fenced.group(1) if fenced else answer
    return program.replace(ANSWER, code.replace(ANSWER, ""))


def check(references: Sequence[str], programs: Sequence[str]) -> None:
    """Raise ``InvalidInput`` where programs cannot be run, or no right answer passes its own."""
    sandbox.check()
    tried = list(zip(programs, references, strict=True))[:REFERENCES_TRIED]
    outcomes = [sandbox.run(fill(program, reference)) for program, reference in tried]
    if outcomes and not any(outcome.passed for outcome in outcomes):
        raise InvalidInput(
            f"none of the first {len(outcomes)} held-out rows passes its own tests with its own"
            f" completion: {_last_line(outcomes[0].error)}; see that the program holds the answer,"
            " what it needs, and the tests, and that they need only Python's standard library",
            field="spec.evaluation.program",
            reason="ProgramFails",
        )


def _last_line(error: str) -> str:
    return (error.splitlines() or [""])[-1]
