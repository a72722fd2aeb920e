"""Six tasks with public rows: what of a row is asked, what is to be answered, how it is scored. Pure.

The rows are files ``<folder>/train.jsonl`` and ``test.jsonl`` with the columns that the data sets have
on the Hugging Face Hub. Scores are the paper's (LoRA Land, arXiv 2405.00732) where it has the task.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
# Tag ids of tner/bc5cdr: what begins an entity, what goes on with one, and its kind.
_BEGINS = {1: "Chemical", 2: "Disease"}
_GOES_ON = {3: "Disease", 4: "Chemical"}


@dataclass(frozen=True)
class Task:
    name: str
    folder: str
    prompt: str
    completion: str
    metrics: tuple[str, ...]
    max_new_tokens: int
    max_tokens: int = 256
    prepare: Callable[[Row], Row] = dict


def entities(row: Row) -> Row:
    """Return a sentence of bc5cdr as text, and what it names as JSON."""
    found: dict[str, list[list[str]]] = {"Chemical": [], "Disease": []}
    for token, tag in zip(row["tokens"], row["tags"], strict=True):
        if tag in _BEGINS:
            found[_BEGINS[tag]].append([token])
        elif tag in _GOES_ON and found[_GOES_ON[tag]]:
            found[_GOES_ON[tag]][-1].append(token)
    named = {kind: [" ".join(words) for words in all_] for kind, all_ in found.items()}
    return {"text": " ".join(row["tokens"]), "entities": json.dumps(named)}


TASKS = (
    Task(
        "sst2",
        "glue_sst2",
        "Review: {sentence}\nPositive (1) or negative (0)? ",
        "{label}",
        ("Accuracy",),
        max_new_tokens=4,
    ),
    Task(
        "banking77",
        "banking77",
        "A bank's customer writes: {text}\nIntent: ",
        "{label_text}",
        ("Accuracy",),
        max_new_tokens=24,
    ),
    Task(
        "viggo",
        "viggo",
        "{target}\nMeaning: ",
        "{meaning_representation}",
        ("RougeL", "ExactMatch"),
        max_new_tokens=96,
    ),
    Task(
        "wikisql",
        "wikisql",
        "Columns: {table.header}\nQuestion: {question}\nSQL: ",
        "{sql.human_readable}",
        ("RougeL", "ExactMatch"),
        max_new_tokens=64,
    ),
    Task(
        "bc5cdr",
        "bc5cdr",
        "{text}\nChemicals and diseases: ",
        "{entities}",
        ("RougeL", "JsonFieldMatch"),
        max_new_tokens=96,
        prepare=entities,
    ),
    Task(
        "gsm8k",
        "gsm8k",
        "Question: {question}\nAnswer: ",
        "{answer}",
        ("Accuracy",),
        max_new_tokens=160,
        max_tokens=384,
    ),
)
