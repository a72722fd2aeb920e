"""Nested Python state (an optimizer's, a random generator's) as JSON and safetensors. No pickle.

Tensors go to the safetensors file; all else to the JSON beside it, in which what JSON lacks is an
object with one key: ``$tensor``, ``$tuple``, ``$dict`` (keys may be numbers), ``$array``.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS_FILE = "state.safetensors"
TREE_FILE = "state.json"


def write_state(state: Any, folder: Path) -> None:
    """Write a tree of dicts, lists, tuples, numbers, texts, arrays and tensors."""
    tensors: dict[str, Tensor] = {}
    tree = _to_json(state, tensors)
    save_file(tensors, folder / TENSORS_FILE)
    (folder / TREE_FILE).write_text(json.dumps(tree))


def read_state(folder: Path) -> Any:
    """Return what ``write_state`` was given."""
    tensors = load_file(folder / TENSORS_FILE)
    return _from_json(json.loads((folder / TREE_FILE).read_text()), tensors)


def _to_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            name = str(len(tensors))
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"$tensor": name}
        case np.ndarray():
            return {"$array": [str(value.dtype), value.tolist()]}
        case dict():
            return {"$dict": [[k, _to_json(v, tensors)] for k, v in value.items()]}
        case tuple():
            return {"$tuple": [_to_json(v, tensors) for v in value]}
        case list():
            return [_to_json(v, tensors) for v in value]
        case _:
            raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint")


def _from_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_from_json(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "$tensor":
        return tensors[content]
    if kind == "$array":
        return np.array(content[1], dtype=content[0])
    if kind == "$tuple":
        return tuple(_from_json(v, tensors) for v in content)
    assert kind == "$dict", kind
    return {k: _from_json(v, tensors) for k, v in content}
