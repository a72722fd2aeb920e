"""What an engine tells of itself. No I/O."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStats:
    """What the engine holds now, and what it counted since the start."""

    num_waiting: int
    num_running: int
    num_kv_blocks: int
    num_free_kv_blocks: int
    num_preemptions: int
    # Tokens of prompts that were looked up in the prefix cache, and those that were found.
    num_prefix_query_tokens: int
    num_prefix_hit_tokens: int
