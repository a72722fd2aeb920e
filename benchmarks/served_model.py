"""Which base model a benchmark measures, and at which precision."""

import argparse
import sys
from pathlib import Path

from loraland_core import catalogue, paths
from loraland_core.catalogue import BaseModelEntry
from loraland_models import sources
from loraland_models.sources import ResolvedModel

# Name -> dtype and quantization, as a catalogue says them.
PRECISIONS = {
    "float32": ("float32", "none"),
    "bf16": ("bf16", "none"),
    "fp16": ("fp16", "none"),
    "nf4": ("float32", "nf4"),
    "nf4-bf16": ("bf16", "nf4"),
    "int8": ("float32", "int8"),
}
EMBEDDED = "smollm2-135m-instruct"


def resolve(arguments: argparse.Namespace) -> ResolvedModel:
    """Return the base model: a folder, a name of the given catalogue, or an embedded one."""
    named = arguments.base_model
    if Path(named).is_dir():
        name, source = "base", {"directory": str(Path(named).resolve())}
        entry = BaseModelEntry.model_validate({"source": source})
    elif arguments.catalogue:
        name, entry = named, catalogue.load(arguments.catalogue).find(named)
    else:
        name, entry = named, BaseModelEntry.model_validate({"source": {"embedded": named}})
    dtype, quantization = PRECISIONS[arguments.precision]
    serving = {"dtype": dtype, "quantization": quantization}
    document = entry.model_dump(by_alias=True, exclude_none=True) | {"serving": serving}
    entry = BaseModelEntry.model_validate(document)
    return sources.resolve(name, entry, cache_dir=paths.cache_dir(), report=_report)


def _report(text: str) -> None:
    print(text, file=sys.stderr)
