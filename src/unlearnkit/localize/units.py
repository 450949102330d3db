"""Units: output channels, embedding rows and attention heads of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from unlearnkit.core.errors import UnsupportedError

View = Callable[[Tensor], Tensor]
"""From a contiguous tensor of a parameter's shape to a view of it whose first dimensions count the
units."""


@dataclass(frozen=True)
class Part:
    """The share of one parameter in some units."""

    name: str
    width: int
    """Scalars in each unit."""

    view: View
    lead: int = 1
    """How many of the view's first dimensions count the units."""


@dataclass
class Block:
    """Units of one layer: unit ``i`` is row ``i`` of each part."""

    count: int
    parts: list[Part]


def blocks(model: nn.Module, *, heads: bool) -> list[Block]:
    """Return the units of a model in the order of its layers.

    An output channel of a linear layer or convolution, with its bias and its scale and shift in
    the batch normalisation that is registered next; a row of an embedding; a unit of a recurrent
    layer with all its gates; an attention head, if requested. Parameters of other modules (layer
    normalisation, class tokens, ...) stand for themselves, scalar by scalar.

    Args:
        model: Only parameters that require gradients count; a tied one counts where it comes first.
        heads: Whether an attention head is one unit; its output bias stays apart.

    Returns:
        The blocks; every scalar is in one.

    Raises:
        UnsupportedError: If heads are requested and there are none.
    """
    left = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    found: list[Block] = []
    some, last = False, None
    for module in model.modules():
        several = isinstance(module, nn.MultiheadAttention) and heads
        own = {
            short: (left.pop(id(p)), p)
            for short, p in module.named_parameters(recurse=several)
            if id(p) in left
        }
        some = some or several
        if not own:
            continue
        here = _layer(module, own, heads=heads)
        if isinstance(module, _BatchNorm) and last and last.count == module.num_features:
            last.parts += here[0].parts
            last = None
            continue
        found += here
        last = here[0] if isinstance(module, nn.Linear | _ConvNd) else None
    if heads and not some:
        raise UnsupportedError(
            "localize: the model has no nn.MultiheadAttention, so there are no heads to tell apart;"
            " use granularity 'channel'"
        )
    return found


def unit_scores(blocks: list[Block], scores: Mapping[str, Tensor], top: float) -> list[Tensor]:
    """Return of each unit the mean of its top share of scores, one tensor ``(count,)`` a block."""
    found = []
    for block in blocks:
        rows = torch.cat([_rows(p, scores[p.name], block.count) for p in block.parts], 1)
        best = max(1, ceil(top * rows.shape[1]))
        found.append(rows.topk(best, dim=1, sorted=False).values.mean(1))
    return found


def unit_sums(blocks: list[Block], values: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the sum of values over each unit, one tensor ``(count,)`` a block."""
    return [
        torch.stack([_rows(p, values[p.name], b.count).sum(1) for p in b.parts]).sum(0)
        for b in blocks
    ]


def select_units(blocks: list[Block], scores: list[Tensor], budget: int) -> list[Tensor]:
    """Return which units to take, best first until the budget is full; ties go to the first."""
    sizes = torch.cat([torch.full((b.count,), sum(p.width for p in b.parts)) for b in blocks])
    every = torch.cat([s.cpu() for s in scores])
    order = every.argsort(descending=True, stable=True)
    fits = sizes[order].cumsum(0) <= budget
    taken = torch.zeros(len(every), dtype=torch.bool)
    taken[order[fits]] = True
    return list(torch.split(taken, [b.count for b in blocks]))


def scatter_units(
    blocks: list[Block], taken: list[Tensor], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return boolean tensors by parameter name: True at every scalar of a taken unit."""
    found = {n: torch.zeros(t.shape, dtype=torch.bool, device=t.device) for n, t in like.items()}
    for block, hit in zip(blocks, taken, strict=True):
        for part in block.parts:
            where = part.view(found[part.name])
            lead = where.shape[: part.lead]
            ones = [1] * (where.ndim - part.lead)
            where.copy_(hit.to(where.device).view(*lead, *ones).expand(where.shape))
    return found


Own = Mapping[str, tuple[str, nn.Parameter]]
"""A layer's own parameters: whole name and tensor, by short name."""


def _layer(module: nn.Module, own: Own, *, heads: bool) -> list[Block]:
    """Return the units of one layer."""
    if isinstance(module, nn.MultiheadAttention) and heads:
        return _attention(module, own)
    if isinstance(module, nn.RNNBase):
        return _recurrent(module, own)
    if isinstance(module, _ConvTransposeNd):
        return [_transposed(module, own)]
    if type(module).__name__ == "Conv1D" and "weight" in own:  # transformers: (inputs, outputs)
        return [_one(own, {"weight": lambda t: t.movedim(1, 0)})]
    if isinstance(module, nn.Linear | _ConvNd | nn.Embedding | nn.EmbeddingBag | _BatchNorm):
        return [_one(own, {})]
    return [Block(p.numel(), [Part(name, 1, _flat)]) for name, p in own.values()]


def _one(own: Own, views: Mapping[str, View]) -> Block:
    """Return one block of all a layer's parameters; their first dimension counts, if not given."""
    parts, count = [], 0
    for short, (name, p) in own.items():
        view = views.get(short, _same)
        count = view(p.detach()).shape[0]
        parts.append(Part(name, p.numel() // max(count, 1), view))
    return Block(count, parts)


def _transposed(module: _ConvTransposeNd, own: Own) -> Block:
    groups = module.groups

    def weight(t: Tensor) -> Tensor:
        return torch.unflatten(t, 0, (groups, -1)).movedim(2, 1)

    parts = [
        Part(name, p.numel() // module.out_channels, weight, 2)
        if short == "weight"
        else Part(name, 1, _same)
        for short, (name, p) in own.items()
    ]
    return Block(module.out_channels, parts)


def _recurrent(module: nn.RNNBase, own: Own) -> list[Block]:
    """Return a block for each layer and direction: a unit has its rows of all gates."""
    hidden = module.hidden_size
    found: dict[str, Block] = {}
    for short, (name, p) in own.items():
        kind, _, layer = short.rpartition("_l")
        if kind == "weight_hr":
            found[short] = Block(len(p), [Part(name, p.shape[1], _same)])
            continue
        block = found.setdefault(layer, Block(hidden, []))
        view: View = lambda t: torch.unflatten(t, 0, (-1, hidden)).movedim(1, 0)  # noqa: E731
        block.parts.append(Part(name, p.numel() // hidden, view))
    return list(found.values())


def _attention(module: nn.MultiheadAttention, own: Own) -> list[Block]:
    """Return the heads: rows of the three projections in, columns of the one out."""
    count, size = module.num_heads, module.head_dim
    parts, apart = [], []
    for short, (name, p) in own.items():
        if short.startswith("in_proj"):
            view: View = lambda t: torch.unflatten(t, 0, (3, count, size)).movedim(1, 0)  # noqa: E731
        elif short in {"q_proj_weight", "k_proj_weight", "v_proj_weight"}:
            view = lambda t: torch.unflatten(t, 0, (count, size))  # noqa: E731
        elif short == "out_proj.weight":
            view = lambda t: torch.unflatten(t, 1, (count, size)).movedim(1, 0)  # noqa: E731
        elif short in {"bias_k", "bias_v"}:
            view = lambda t: torch.unflatten(t, 2, (count, size)).movedim(2, 0)  # noqa: E731
        else:
            apart.append(Block(p.numel(), [Part(name, 1, _flat)]))
            continue
        parts.append(Part(name, p.numel() // count, view))
    return [Block(count, parts), *apart] if parts else apart


def _same(t: Tensor) -> Tensor:
    return t


def _flat(t: Tensor) -> Tensor:
    return t.view(-1)


def _rows(part: Part, t: Tensor, count: int) -> Tensor:
    return part.view(t.contiguous()).reshape(count, part.width)
