"""What the results' tasks make of a row."""

import quality_tasks


def test_entities_are_put_together_from_their_tags() -> None:
    """Tokens that begin an entity, and those that go on with it."""
    row = {"tokens": ["Lithium", "causes", "kidney", "disease", "."], "tags": [1, 0, 2, 3, 0]}

    prepared = quality_tasks.entities(row)

    assert prepared == {
        "text": "Lithium causes kidney disease .",
        "entities": '{"Chemical": ["Lithium"], "Disease": ["kidney disease"]}',
    }
