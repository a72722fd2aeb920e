"""LoRA over a mixed batch. No I/O; adapters are already validated and in memory.

All active adapters of a linear lie side by side in one A and one B. Each token multiplies with all
of them and a mask keeps the columns of its own, so that neither the number of adapters nor their
ranks show up as a loop or as padding.

Shapes: T packed tokens, D in, O out, K the sum of the packed adapters' ranks, R one adapter's rank.
Sources: Hu et al. 2021, arXiv:2106.09685; batching after Punica, arXiv:2310.18547.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from loraland_models import balancing
from loraland_models.balancing import Factors
from loraland_models.int8 import Int8Linear
from torch import Tensor, nn
from torch.nn import functional

from loraland_engine.sequence import NO_ADAPTER


@dataclass(frozen=True)
class LoraWeights:
    """One linear's update. The scaling is folded into ``b_RO``.

    ``scale_R``, where there is one, multiplies each rank: both weights may then be int8.
    """

    a_RD: Tensor
    b_RO: Tensor
    scale_R: Tensor | None = None

    @property
    def size_bytes(self) -> int:
        scale_bytes = self.scale_R.nbytes if self.scale_R is not None else 0
        return self.a_RD.nbytes + self.b_RO.nbytes + scale_bytes


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter ready for a slot: weights by module name."""

    weights: dict[str, LoraWeights]
    rank: int

    @property
    def size_bytes(self) -> int:
        return sum(w.size_bytes for w in self.weights.values())


@dataclass(frozen=True)
class _Packed:
    a_KD: Tensor
    b_KO: Tensor
    # Which columns belong to which slot, as (slot, rank) in order; linears that agree share a mask.
    columns: tuple[tuple[int, int], ...]


class AdapterSlots:
    """The resident adapters, and those of them that are packed for the current batch."""

    def __init__(self, *, num_slots: int) -> None:
        self._adapters: list[LoraAdapter | None] = [None] * num_slots
        self._packed_slots: frozenset[int] = frozenset()
        self._packed: dict[str, _Packed] = {}
        self._masks: dict[tuple[tuple[int, int], ...], Tensor | None] = {}
        self._slot_T: Tensor | None = None
        self._only_slot: int | None = None

    @property
    def num_slots(self) -> int:
        return len(self._adapters)

    def adapter(self, slot: int) -> LoraAdapter | None:
        return self._adapters[slot]

    def free_slot(self) -> int | None:
        return next((i for i, adapter in enumerate(self._adapters) if adapter is None), None)

    def insert(self, slot: int, adapter: LoraAdapter) -> None:
        assert self._adapters[slot] is None, slot
        self._adapters[slot] = adapter

    def remove(self, slot: int) -> None:
        self._adapters[slot] = None
        if slot in self._packed_slots:
            self._pack(self._packed_slots - {slot})

    def prepare(self, slots: list[int], device: torch.device) -> None:
        """Set the step's owner of each packed token; repack if an adapter is new to the batch."""
        active = frozenset(slots) - {NO_ADAPTER}
        if not active <= self._packed_slots or self._is_wasteful(active):
            self._pack(active)
        self._masks = {}
        self._slot_T = torch.tensor(slots, device=device) if active else None
        self._only_slot = slots[0] if len(set(slots)) == 1 else None

    def apply(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Return ``y`` plus each token's update; ``y`` may be changed in place."""
        packed = self._packed.get(name)
        if packed is None or self._slot_T is None:
            return y
        add_lora(
            y.view(-1, y.shape[-1]),
            x.reshape(-1, x.shape[-1]),
            packed.a_KD,
            packed.b_KO,
            self._mask(packed),
        )
        return y

    def _mask(self, packed: _Packed) -> Tensor | None:
        """Return [T, K], 1 where a column belongs to the token; None where all columns do."""
        if packed.columns not in self._masks:
            assert self._slot_T is not None
            owners = [slot for slot, rank in packed.columns for _ in range(rank)]
            if set(owners) == {self._only_slot}:
                mask = None
            else:
                owner_K = torch.tensor(owners, device=self._slot_T.device)
                mask = (owner_K[None, :] == self._slot_T[:, None]).to(packed.a_KD.dtype)
            self._masks[packed.columns] = mask
        return self._masks[packed.columns]

    def _is_wasteful(self, active: frozenset[int]) -> bool:
        """Whether most of what is packed belongs to adapters that no row uses any more."""
        return bool(active) and self._total_rank(self._packed_slots) > 2 * self._total_rank(active)

    def _total_rank(self, slots: Iterable[int]) -> int:
        return sum(adapter.rank for slot in slots if (adapter := self._adapters[slot]))

    def _pack(self, slots: frozenset[int]) -> None:
        by_module: dict[str, list[tuple[int, LoraWeights]]] = {}
        for slot in sorted(slots):
            adapter = self._adapters[slot]
            assert adapter is not None, slot
            for name, weights in adapter.weights.items():
                by_module.setdefault(name, []).append((slot, weights))
        self._packed_slots = slots
        self._packed = {name: _join(parts) for name, parts in by_module.items()}


class LoraLinear(nn.Module):
    """A linear of the base model with the batch's adapters on top; the base stays as it is."""

    def __init__(self, base: nn.Module, name: str, slots: AdapterSlots) -> None:
        super().__init__()
        self.base = base
        self._name = name
        self._slots = slots

    @property
    def weight(self) -> Tensor:
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        return self._slots.apply(self._name, x, self.base(x))


def add_lora(
    y_TO: Tensor, x_TD: Tensor, a_KD: Tensor, b_KO: Tensor, owner_TK: Tensor | None
) -> None:
    """Add each token's low-rank update to ``y_TO`` in place.

    ``owner_TK`` is 1 where column k belongs to the token's adapter; a row of zeros is the base
    model, None gives every token every column. The scaling is folded into ``b_KO``.
    """
    h_TK = functional.linear(x_TD.to(a_KD.dtype), a_KD)
    if owner_TK is not None:
        h_TK.mul_(owner_TK)
    if y_TO.dtype == b_KO.dtype:
        y_TO.addmm_(h_TK, b_KO)
    else:
        y_TO.add_(h_TK @ b_KO)


def find_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linears that an adapter may change, by name: all but the output head."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Int8Linear) and module is not head
    }


def find_factors(model: nn.Module) -> dict[str, Factors]:
    """Return what the inputs and outputs of the model's linears were divided by."""
    return {
        name: linear.factors
        for name, linear in find_linears(model).items()
        if isinstance(linear, Int8Linear) and linear.factors is not None
    }


def adapt(adapter: LoraAdapter, factors: Mapping[str, Factors]) -> LoraAdapter:
    """Return the adapter for linears whose inputs and outputs were divided."""
    weights = {
        name: LoraWeights(*balancing.adapt(own.a_RD, own.b_RO, factors[name]))
        if name in factors
        else own
        for name, own in adapter.weights.items()
    }
    return replace(adapter, weights=weights)


def wrap_linears(model: nn.Module, slots: AdapterSlots) -> dict[str, LoraLinear]:
    """Put a ``LoraLinear`` in the place of each linear but the output head; return them by name."""
    wrapped = {name: LoraLinear(m, name, slots) for name, m in find_linears(model).items()}
    for name, module in wrapped.items():
        _replace(model, name, module)
    return wrapped


def unwrap_linears(model: nn.Module, wrapped: dict[str, LoraLinear]) -> None:
    """Give the model its own linears back."""
    for name, module in wrapped.items():
        _replace(model, name, module.base)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _join(parts: list[tuple[int, LoraWeights]]) -> _Packed:
    columns = tuple((slot, weights.a_RD.shape[0]) for slot, weights in parts)
    if len(parts) == 1:
        return _Packed(parts[0][1].a_RD, parts[0][1].b_RO, columns)
    return _Packed(
        torch.cat([weights.a_RD for _, weights in parts]),
        torch.cat([weights.b_RO for _, weights in parts]),
        columns,
    )
