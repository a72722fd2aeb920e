"""Texts that are compared with committed files; ``LORALAND_UPDATE_GOLDENS=1`` writes those anew."""

import os
import re
from pathlib import Path

# What differs from run to run, and what stands for it.
_VOLATILE = (
    (r"\b[0-9a-f]{64}\b", "<digest>"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uid>"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
    (r"(Resource Version: +|Registered Revision: +)\d+", r"\1<number>"),
    (r"\b(\d+[smhd])+ \(x\d+ over (\d+[smhd])+\)|<invalid> \(x\d+ over \S+\)", "<age>"),
    (r"(?<=  )(\d+[smhd])+(?=  |$)|<invalid>", "<age>"),
    (r"\b127\.\d+\.\d+\.\d+(:\d+)?", "<address>"),
)


def normalized(text: str, *, is_aligned: bool = False) -> str:
    """Return the text without what no two runs share, and without what aligns it unless told so."""
    for pattern, replacement in _VOLATILE:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    lines = [line.rstrip() for line in text.splitlines()]
    if not is_aligned:
        lines = [re.sub(r"(?<=\S) {2,}", "  ", line) for line in lines]
    return "\n".join(lines).rstrip() + "\n"


def check(path: Path, text: str) -> None:
    """Hold the text against the file."""
    if os.environ.get("LORALAND_UPDATE_GOLDENS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    expected = path.read_text() if path.exists() else ""
    assert expected == text, f"{path.name} differs; LORALAND_UPDATE_GOLDENS=1 writes it anew"
