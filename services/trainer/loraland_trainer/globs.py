"""Names with wildcards: ``*``, ``?`` and ``[..]`` within a folder, ``**`` across folders. Pure."""

import re

_MAGIC = re.compile(r"[*?\[]")
# A set of characters, a run of stars, a question mark, or anything else.
_TOKEN = re.compile(r"\[(?P<not>[!^]?)(?P<set>\]?[^\]/]*)\]|(?P<star>\*+)|(?P<one>\?)|(?P<other>.)")


def has_magic(pattern: str) -> bool:
    return _MAGIC.search(pattern) is not None


def fixed_part(pattern: str) -> str:
    """Return the folders before the first wildcard, with the slash: where to look."""
    head = _MAGIC.split(pattern, maxsplit=1)[0]
    return head[: head.rfind("/") + 1]


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Return what matches the names that the pattern means."""
    *folders, name = pattern.split("/")
    regex = "".join("(?:.*/)?" if part == "**" else f"{_part(part)}/" for part in folders)
    return re.compile(regex + (".*" if name == "**" else _part(name)), re.DOTALL)


def _part(part: str) -> str:
    return "".join(map(_token, _TOKEN.finditer(part)))


def _token(match: re.Match[str]) -> str:
    if match["star"]:
        return "[^/]*"
    if match["one"]:
        return "[^/]"
    if match["other"]:
        return re.escape(match["other"])
    characters = re.sub(r"([\\\[\]&~|^])", r"\\\1", match["set"])
    return f"[{'^/' if match['not'] else ''}{characters}]"
