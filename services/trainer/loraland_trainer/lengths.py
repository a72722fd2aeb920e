"""How long the rows are, and what was done about those that are too long. Pure."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LengthReport:
    """Tokens of the rows as they were before anything was cut."""

    num_rows: int
    shortest: int
    median: int
    percentile_95: int
    longest: int
    max_tokens: int
    policy: str = "Cut"
    num_prompts_cut: int = 0
    num_completions_cut: int = 0
    num_tokens_cut: int = 0
    num_dropped: int = 0

    def sentence(self) -> str:
        """Return what a person wants to know in one line."""
        text = (
            f"{self.num_rows} rows of {self.shortest} to {self.longest} tokens (median"
            f" {self.median}, 95 % up to {self.percentile_95})"
        )
        if self.num_dropped:
            return f"{text}; {self.num_dropped} over {self.max_tokens} tokens left out"
        if self.num_prompts_cut or self.num_completions_cut:
            return (
                f"{text}; over {self.max_tokens} tokens, {self.num_prompts_cut} prompts lost their"
                f" beginning and {self.num_completions_cut} completions their end,"
                f" {self.num_tokens_cut} tokens in all"
            )
        return f"{text}; none over {self.max_tokens} tokens, nothing cut"

    def to_document(self) -> dict[str, Any]:
        return {
            "rows": self.num_rows,
            "shortestTokens": self.shortest,
            "medianTokens": self.median,
            "percentile95Tokens": self.percentile_95,
            "longestTokens": self.longest,
            "maxTokens": self.max_tokens,
            "longRows": self.policy,
            "promptsCut": self.num_prompts_cut,
            "completionsCut": self.num_completions_cut,
            "tokensCut": self.num_tokens_cut,
            "rowsDropped": self.num_dropped,
        }


def measure(lengths: Any, *, max_tokens: int, policy: str, **counts: int) -> LengthReport:
    """Return the report on the lengths of all rows, those included that were dropped."""
    known = np.asarray(lengths)
    return LengthReport(
        num_rows=len(known),
        shortest=int(known.min()),
        median=int(np.percentile(known, 50, method="higher")),
        percentile_95=int(np.percentile(known, 95, method="higher")),
        longest=int(known.max()),
        max_tokens=max_tokens,
        policy=policy,
        **counts,
    )


@dataclass(frozen=True)
class DataReport:
    """What a job learned from and was scored on, for metrics, status and model card."""

    origin: str
    num_left_out: int
    learned: LengthReport
    held_out: LengthReport

    def sentence(self) -> str:
        """Return where the rows came from and what was cut, within a status message's length."""
        left_out = f"{self.num_left_out} rows left out by the filter; " if self.num_left_out else ""
        origin = self.origin if len(self.origin) <= 200 else f"{self.origin[:199]}…"
        return (
            f"{origin}: {left_out}learned from {self.learned.sentence()};"
            f" held out {self.held_out.sentence()}"
        )

    def to_document(self) -> dict[str, Any]:
        return {
            "origin": self.origin,
            "rowsLeftOut": self.num_left_out,
            "learned": self.learned.to_document(),
            "heldOut": self.held_out.to_document(),
        }
