"""The generate command: one request, its answer printed while it is made."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from loraland_client import Client
from loraland_client.wire import Request
from loraland_local import layout

from loraland_cli import access
from loraland_cli.console import Failure, err


def run(
    state: Path | None,
    *,
    prompt: str | None,
    adapter: str,
    fields: Sequence[str],
    options: Request,
) -> None:
    values = parse_fields(fields)
    if (prompt is None) == (not values):
        raise Failure("give either a prompt, or --field KEY=VALUE for the adapter's own template")
    if sum(options.get(form) is not None for form in ("json_schema", "regex", "choice")) > 1:
        raise Failure("give at most one of --json-schema, --regex, --choice")
    if values and not adapter:
        raise Failure("--field needs --adapter: the base model has no template of its own")
    place = layout.locate(state)
    address = access.grpc_address(place)
    adapter_id = "/".join(access.qualified(adapter)) if adapter else ""
    asyncio.run(
        _print_answer(
            address,
            access.token(place),
            options | {"adapter": adapter_id, "prompt": prompt, "fields": values or None},
        )
    )


def read_schema(path: Path | None) -> str | None:
    """Return the schema's text; ``Failure`` where there is none."""
    try:
        return path.read_text(encoding="utf-8") if path else None
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"--json-schema {path} cannot be read: {error}") from error


def parse_fields(fields: Sequence[str]) -> dict[str, str]:
    """Return KEY=VALUE pairs as a mapping; ``Failure`` names one without a sign."""
    values = {}
    for field in fields:
        key, sign, value = field.partition("=")
        if not sign or not key:
            raise Failure(f"--field wants KEY=VALUE, found {field!r}")
        values[key] = value
    return values


async def _print_answer(address: str, token: str, request: Request) -> None:
    async with Client(address, token) as client:
        last = None
        async for chunk in client.stream(**request):
            sys.stdout.write(chunk.text)
            sys.stdout.flush()
            last = chunk
    sys.stdout.write("\n")
    if last is not None and last.digest:
        adapter = request["adapter"]
        err.print(f"[dim]answered by {adapter}, digest {last.digest[:12]}…[/dim]")
