"""The shell blocks of a page: which can run here, and which only where there is a cluster. No I/O."""

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^```(sh[^\n]*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    line: int
    text: str
    is_cloud: bool


def read(page: str) -> list[Block]:
    """Return the page's shell blocks; a tag that is not known is a mistake."""
    found = []
    for match in _FENCE.finditer(page):
        line = page[: match.start()].count("\n") + 1
        tags = match[1].split()[1:]
        if tags not in ([], ["cloud"]):
            raise ValueError(f"line {line}: unknown tag {tags}; expected sh, or sh cloud")
        found.append(Block(line, match[2], is_cloud=bool(tags)))
    return found
