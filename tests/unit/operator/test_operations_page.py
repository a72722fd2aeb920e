"""docs/operations.md and the code know the same reasons, conditions and settings."""

import re
from pathlib import Path

import pytest
from loraland_core import names

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/operations.md").read_text()
CONFIG = (ROOT / "operator/loraland_operator/config.py").read_text()


def first_cells(section: str) -> list[str]:
    """Return what the tables of a section explain."""
    return re.findall(r"^\| `([A-Za-z]+)` \|", section, flags=re.MULTILINE)


def test_every_reason_is_explained_once() -> None:
    """Whoever meets a reason finds what to do; no reason is explained that never comes."""
    section = PAGE.split("## Reasons", 1)[1].split("## The operator itself", 1)[0]

    assert sorted(names.Reason) == sorted(first_cells(section))


@pytest.mark.parametrize(
    ("title", "types"),
    [("FineTuneJob", names.JobCondition), ("Adapter", names.AdapterCondition)],
    ids=["FineTuneJob", "Adapter"],
)
def test_every_condition_is_explained(
    title: str, types: type[names.JobCondition] | type[names.AdapterCondition]
) -> None:
    """The tables of conditions are complete and in the order of the status."""
    section = PAGE.split(f"## {title}: conditions", 1)[1].split("\n## ", 1)[0]

    assert [str(t) for t in types] == first_cells(section)


def test_every_setting_is_documented() -> None:
    """What the operator reads from its environment stands on the page."""
    read = set(re.findall(r'"(LORALAND_[A-Z_]+)"', CONFIG))

    assert read == {s for s in read if f"`{s}`" in PAGE}


def test_reasons_of_the_training_pod_are_known() -> None:
    """What the trainer may say in its termination message is in the one list of reasons."""
    sources = [
        path.read_text()
        for part in ("core", "models", "trainer")
        for path in (ROOT / "services" / part).rglob("*.py")
    ]
    said = {r for text in sources for r in re.findall(r'reason="([A-Za-z]+)"', text)}

    assert said == said & set(names.Reason)
