"""Counts of tokens, kept from step to step."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from loraland_engine.history import TokenHistory

TOKENS = st.lists(st.integers(0, 30), max_size=60)


@given(prompt=TOKENS, output=TOKENS)
def test_history_counts_the_output_and_knows_the_prompt(
    prompt: list[int], output: list[int]
) -> None:
    """Each different token once; those that only the prompt has count 0."""
    history = TokenHistory(prompt)
    for token_id in output:
        history.add(token_id)

    found = dict(zip(history.token_ids.tolist(), history.counts.tolist(), strict=True))

    assert found == dict.fromkeys(prompt, 0) | dict(Counter(output))
