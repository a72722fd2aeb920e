"""Prompt templates: text with named ``{column}`` placeholders. Nothing is ever executed.

``{{`` and ``}}`` stand for literal braces. No format specs, attributes or indexes: a template comes
from a user, and so do the values. ``prompt.json`` carries the template beside an adapter's weights.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from loraland_core.errors import InvalidInput
from loraland_core.resources.common import Model

SCHEMA_VERSION = 1
PROMPT_FILE = "prompt.json"

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_ .-]*$")


class PromptTemplate(Model):
    """How an adapter's input is written: ``template`` for fields, or the chat template."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["fields", "messages"]
    template: str | None = None

    def to_json(self) -> bytes:
        document = self.model_dump(by_alias=True, exclude_none=True)
        return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def parse_prompt(data: bytes) -> PromptTemplate:
    """Read ``prompt.json``; raise ``InvalidInput`` on anything else."""
    try:
        prompt = PromptTemplate.model_validate_json(data)
    except ValidationError as error:
        raise InvalidInput(error.errors()[0]["msg"], field=PROMPT_FILE) from error
    if prompt.schema_version > SCHEMA_VERSION:
        raise InvalidInput(
            f"schemaVersion {prompt.schema_version} is newer than {SCHEMA_VERSION}; upgrade",
            field=PROMPT_FILE,
        )
    if prompt.kind == "fields":
        placeholders(prompt.template or "", field=PROMPT_FILE)
    return prompt


def placeholders(template: str, *, field: str = "template") -> list[str]:
    """Return the column names in order of appearance; raise ``InvalidInput`` on bad syntax."""
    found: dict[str, None] = {}
    for match in _TOKEN.finditer(template):
        token = match.group(0)
        if token in ("{{", "}}"):
            continue
        name = match.group(1)
        if name is None:
            raise InvalidInput(
                f"single {token!r} at character {match.start()}; write {token * 2} for a brace",
                field=field,
                reason="InvalidTemplate",
            )
        if not _NAME.match(name):
            raise InvalidInput(
                f"placeholder {{{name}}} at character {match.start()} is not a column name",
                field=field,
                reason="InvalidTemplate",
            )
        found[name] = None
    return list(found)


def render(template: str, values: Mapping[str, Any], *, field: str = "template") -> str:
    """Return the template with every ``{column}`` replaced by its value, as text."""
    missing = [name for name in placeholders(template, field=field) if name not in values]
    if missing:
        raise InvalidInput(
            f"the template names {', '.join(missing)}, which is not there;"
            f" present: {', '.join(sorted(values)) or 'nothing'}",
            field=field,
            reason="ColumnMissing",
        )

    def replaced(match: re.Match[str]) -> str:
        token = match.group(0)
        if token in ("{{", "}}"):
            return token[0]
        return _text(values[match.group(1)])

    return _TOKEN.sub(replaced, template)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
